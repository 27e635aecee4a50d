"""The IDX format of MNIST: chapter 11."""

import math
import struct

import numpy as np
from numpy.typing import NDArray


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes, MNIST's format (chapter 11).

    Such a file starts with the bytes 0, 0, 8 (for "unsigned byte") and the number of dimensions, then has
    each dimension as a big-endian 32-bit integer; the values follow in row-major order.

    Args:
        content: the decompressed bytes of the file.
        name: what the file is called in errors.

    Raises:
        ValueError: if the header is not valid, or the number of values is not that of the header.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]), "example")
        array([[1, 2, 3],
               [4, 5, 6]], dtype=uint8)
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] == 0:
        raise ValueError(f"{name} must start with the IDX bytes 00 00 08 n, got {content[:4].hex(' ')!r}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{name} ends inside its header, which has {start} bytes; got {len(content)}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"{name} must hold {math.prod(shape)} values {shape}, got {len(content) - start}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
