"""The user's own data for `vaetut train --dataset PATH`: a folder of images, or an array in a file. Chapter 11.

`vaetut.data.pictures` reads folders, `vaetut.data.tables` files; no code in a file is run.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaetut._support.files import path_of
from vaetut._support.validate import positive_int, real_number
from vaetut.data.loading import ImageData, describe_shape
from vaetut.data.pictures import read_folder
from vaetut.data.tables import Table, read_table

_CHUNK = 2**24  # values that are checked at once
_LARGEST = float(np.finfo(np.float32).max)
_IN_MEMORY = 2**30  # bytes in float32; above, an array stays in its file, or as 8-bit values

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class OwnData(ImageData):
    """What `read` returns: `ImageData`, and what was found while reading.

    Attributes:
        low, high: the smallest and the largest value.
        binary: whether all values are 0 or 1.
        constant_columns: the number of columns that have one value in all rows.
        summary: a description of the data in one line.
    """

    low: float = 0.0
    high: float = 1.0
    binary: bool = False
    constant_columns: int = 0
    summary: str = ""

    @property
    def dim(self) -> int:
        """D, the length of a row."""
        return int(self.train.shape[1])

    __repr__ = ImageData.__repr__


class Rows(torch.utils.data.Dataset[Tensor]):
    """Rows that are converted when they are needed: float32 ``[D]`` each, divided by ``scale``.

    Args:
        array: ``[N, ...]``, memory-mapped or of 8-bit values.
        index: the rows, int64.
        scale: the divisor of the values.
    """

    def __init__(self, array: Array, index: Array, scale: float) -> None:
        self.array, self.index, self.scale = array, index, scale
        self.shape = (len(index), int(np.prod(array.shape[1:])))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Tensor:
        return _floats(self.array[self.index[i]][None], self.scale)[0]

    def __getitems__(self, indices: list[int]) -> Tensor:
        """Several rows at once, ``[n, D]``."""
        return _floats(self.array[self.index[indices]], self.scale)


def read(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    test_share: float = 1 / 6,
) -> OwnData:
    """Read the user's own data for training.

    * A folder of PNG or JPEG images; the name of a subfolder is the label of its images. If all are gray,
      the data are gray, otherwise color. All must have one size, unless ``image_size`` is given: then the largest
      central part of each image that has these proportions is resized. Transparent pixels are white.
    * ``.npy``, ``.npz`` or ``.pt``: an array or tensor ``[N, D]``, ``[N, height, width]``, ``[N, height, width, 3]`` or
      ``[N, 3, height, width]``. If a file has several arrays, ``x`` and ``y`` are data and labels, or ``x_train``,
      ``y_train``, ``x_test``, ``y_test``.
    * ``.csv``: one datapoint a line, with or without a line of names; a column named ``label`` has the labels.

    Images are decoded one at a time; all are held in memory at their final size, one byte for each value if they have
    8 bits (40,000 color images of 64 x 64 pixels: 0.5 GB). For more, write them to a ``.npy`` file: a large one is
    memory-mapped, and one minibatch at a time is read.

    8-bit values are divided by 255, and 16-bit (uint16) values of images by 65535, unless all are 0 or 1; other values,
    and flat rows of uint16, which may be counts, are not changed. Divide images of 10 to 14 bits yourself.

    The test rows are evenly spaced over all rows: this needs no random numbers, so the split is the same at each call,
    and it works for sorted files too.

    Args:
        path: the folder or file.
        image_size: ``(height, width)``; for a file with flat rows, the size of the images.
        test_share: share of the rows that is kept for testing.

    Raises:
        TypeError: if an argument has another type.
        FileNotFoundError: if the path does not exist.
        ValueError: if the data cannot be used; the message names the file, and the row if there is one.

    Example:
        >>> import tempfile, numpy
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     numpy.save(f"{folder}/faces.npy", numpy.zeros((12, 28, 20), dtype=numpy.uint8))
        ...     read(f"{folder}/faces.npy")
        ImageData('faces': 10 training and 2 test images of 28 x 20 pixels)
    """
    file = path_of(path, "path")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist")
    if not 0 < real_number(test_share, "test_share") < 1:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")
    if image_size is not None:
        image_size = _checked_size(image_size)
    is_folder = file.is_dir()
    table = read_folder(file, image_size) if is_folder else read_table(file)
    shape = _image_shape(file, table.x.shape, None if is_folder else image_size)
    low, high, binary, constant = _survey(file, table)
    bits = 0 if table.x.dtype.kind != "u" or high <= 1 else 8 * table.x.dtype.itemsize
    scale = 255.0 if bits == 8 else 65535.0 if bits == 16 and len(shape) > 1 else 1.0

    channels_last = _channels_last(table.x.shape)
    x = np.moveaxis(table.x, -1, 1) if channels_last else table.x
    if table.test is None:
        is_test = _spread(len(x), test_share, file)
        parts = [
            _part(x, np.flatnonzero(~is_test), scale, lazy=True),
            _part(x, np.flatnonzero(is_test), scale),
        ]
        labels = [table.labels[~is_test], table.labels[is_test]]
    else:
        test = np.moveaxis(table.test, -1, 1) if channels_last else table.test
        parts = [_part(x, None, scale), _part(test, None, scale)]
        labels = [table.labels, table.test_labels]
    train, test_part = parts
    rows, size = describe_shape(shape)
    named = f", {len(table.names)} labels" if table.names else ""
    scaled = f", {bits}-bit values divided by {scale:g}" if scale != 1 else ""
    summary = (
        f"{file}: {len(train) + len(test_part)} {rows} {size}{named}, values from {low / scale:g} to "
        f"{high / scale:g}{scaled}{table.remark}; {len(train)} for training and {len(test_part)} for testing"
    )
    return OwnData(
        train,
        torch.from_numpy(labels[0]),
        test_part,
        torch.from_numpy(labels[1]),
        shape,
        file.stem,
        table.names,
        low / scale,
        high / scale,
        binary,
        constant,
        summary,
    )


def likelihood_for(data: OwnData) -> tuple[str, str]:
    """The likelihood that fits the data, and why.

    Example:
        >>> x = torch.zeros(4, 6)
        >>> likelihood_for(OwnData(x, torch.zeros(4), x, torch.zeros(4), (2, 3), "mine", low=-3.0, high=5.0))
        ('gaussian', 'as values from -3 to 5 are not all in [0, 1]')
    """
    if len(data.image_shape) == 3:
        return "isotropic", "as color values are not probabilities"
    if data.binary:
        return "bernoulli", "as all values are 0 or 1"
    if data.low >= 0 and data.high <= 1:
        return "bernoulli", "as all values are in [0, 1]"
    outside = f"as values from {data.low:g} to {data.high:g} are not all in [0, 1]"
    if data.constant_columns:
        return "isotropic", (
            f"{outside}, and a Gaussian with a learned variance has no upper limit for constant columns, "
            f"{data.constant_columns} of {data.dim}"
        )
    return "gaussian", outside


def _checked_size(size: Any) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise TypeError(f"image_size must be (height, width), got {size!r} of type {type(size).__name__}")
    height, width = (positive_int(side, "image_size") for side in size)
    return height, width


def _image_shape(path: Path, shape: tuple[int, ...], image_size: tuple[int, int] | None) -> tuple[int, ...]:
    """The shape of one image in data of this shape; ``(D,)`` if the rows are flat."""
    one = tuple(shape[1:])
    if len(one) == 3 and _channels_last(shape):
        one = (one[2], *one[:2])
    if len(one) == 3 and one[0] in (1, 3):
        found: tuple[int, ...] = one if one[0] == 3 else one[1:]
    elif len(one) in (1, 2):
        found = one
    else:
        raise ValueError(
            f"{path} must hold an array [N, D], [N, height, width], [N, height, width, 3] or [N, 3, height, width], "
            f"got {list(shape)}"
        )
    if image_size is None:
        return found
    height, width = image_size
    if len(found) > 1 and found[-2:] != image_size:
        raise ValueError(
            f"image_size (--image-size) is {height} x {width}, but {path} holds images of {found[-2]} x {found[-1]}; "
            "only images of a folder can be resized"
        )
    if len(found) == 1 and found[0] not in (height * width, 3 * height * width):
        raise ValueError(
            f"image_size (--image-size) {height} x {width} does not fit {path}, whose rows have {found[0]} numbers"
        )
    if len(found) == 1:
        return image_size if found[0] == height * width else (3, height, width)
    return found


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images ``[N, ., ., .]`` have the color dimension last; if both are possible, it is the first."""
    return len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)


def _survey(path: Path, table: Table) -> tuple[float, float, bool, int]:
    """Smallest and largest value, whether all are 0 or 1, the number of constant columns; no NaN is allowed."""
    low, high, binary = np.inf, -np.inf, True
    smallest = largest = None
    for first, chunk in _chunks([table.x] if table.test is None else [table.x, table.test]):
        flat = chunk.reshape(len(chunk), -1)
        with np.errstate(invalid="ignore"):
            below, above = flat.min(0), flat.max(0)
        if not (float(below.min()) >= -_LARGEST and float(above.max()) <= _LARGEST):  # NaN fails too
            bad = np.flatnonzero(~(np.abs(flat.astype(np.float64)) <= _LARGEST).all(1))
            row = first + int(bad[0])
            raise ValueError(
                f"{path} must hold finite numbers, row {row} (counted from 0) has NaN, infinity or a value "
                "beyond float32"
            )
        smallest = below if smallest is None else np.minimum(smallest, below)
        largest = above if largest is None else np.maximum(largest, above)
        low, high = min(low, float(below.min())), max(high, float(above.max()))
        binary = binary and bool(((flat == 0) | (flat == 1)).all())
    assert smallest is not None
    return low, high, binary, int((smallest == largest).sum())


def _chunks(arrays: list[Array]) -> Iterable[tuple[int, Array]]:
    """Pieces of arrays, each with the number of its first row."""
    for array in arrays:
        step = max(1, _CHUNK // max(1, int(np.prod(array.shape[1:]))))
        for first in range(0, len(array), step):
            yield first, array[first : first + step]


def _spread(number: int, share: float, path: Path) -> Array:
    """A mask of the rows for testing: a ``share`` of them, evenly spaced."""
    i = np.arange(number)
    is_test: Array = np.floor((i + 1) * share + 1e-9) > np.floor(i * share + 1e-9)
    if not is_test.any():
        is_test[-1] = True
    if is_test.all():
        raise ValueError(
            f"{path} has {number} row{'s' * (number > 1)}, too few to keep a share of {share:.3g} for testing"
        )
    return is_test


def _part(x: Array, index: Array | None, scale: float, lazy: bool = False) -> Any:
    """Rows as float32 ``[n, D]``; large ones are converted only when they are used."""
    if index is None:
        return _floats(x, scale)
    if lazy and (isinstance(x, np.memmap) or x.itemsize < 4) and 4 * x.size > _IN_MEMORY:
        return Rows(x, index, scale)
    return _floats(x[index], scale)


def _floats(x: Array, scale: float) -> Tensor:
    values = np.ascontiguousarray(x.reshape(len(x), -1), np.float32)
    found = torch.from_numpy(values if values.flags.writeable else values.copy())
    return found.div_(scale) if scale != 1 else found
