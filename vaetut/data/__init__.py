"""Images to train on (chapter 11, *The variational auto-encoder*)."""

from vaetut.data.cache import DATA_DIR_VARIABLE
from vaetut.data.idx import parse_idx
from vaetut.data.loading import ImageData, binarize, load
from vaetut.data.own import read

__all__ = ["DATA_DIR_VARIABLE", "ImageData", "binarize", "load", "parse_idx", "read"]
