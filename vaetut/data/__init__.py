"""Images to train on (chapter 11, *The variational auto-encoder*)."""

from vaetut.data.images import DATA_DIR_VARIABLE, ImageData, binarize, load, parse_idx

__all__ = ["DATA_DIR_VARIABLE", "ImageData", "binarize", "load", "parse_idx"]
