"""Arrays in the user's files, ``.npy``, ``.npz``, ``.pt`` and ``.csv``, for `vaetut.data.own`: chapter 11."""

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_DATA, _LABELS = ("x", "data", "images"), ("y", "labels", "label", "class", "target")

Array = NDArray[Any]


class Table(NamedTuple):
    """The content of a file: ``x [N, ...]`` with its labels, -1 if it has none, and test data if it has them."""

    x: Array
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    test: Array | None = None
    test_labels: NDArray[np.int64] = np.empty(0, np.int64)
    remark: str = ""


def read_table(path: Path) -> Table:
    """The array in a file, and its labels."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".pt": _pt,
        ".csv": _csv,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} must be a folder of images, or a file that ends with {', '.join(readers)}")
    found = reader(path)
    arrays = found if isinstance(found, dict) else {"x": found}
    if "x_train" in arrays and "x_test" in arrays:
        x, test = _numbers(path, arrays["x_train"]), _numbers(path, arrays["x_test"])
        if x.shape[1:] != test.shape[1:]:
            raise ValueError(
                f"{path}: x_train and x_test must have rows of one shape, got {list(x.shape)} and {list(test.shape)}"
            )
        both = [arrays.get("y_train"), arrays.get("y_test")]
        if any(part is None for part in both):
            return Table(x, _none(len(x)), (), test, _none(len(test)))
        for part, rows in zip(both, (x, test), strict=True):
            _check_labels(path, part, len(rows))
        labels, names = _labels(np.concatenate([np.asarray(part).reshape(-1) for part in both]))
        return Table(x, labels[: len(x)], names, test, labels[len(x) :])
    by_name = {name.lower(): name for name in arrays}
    key = next((by_name[name] for name in _DATA if name in by_name), None)
    others = [name for name in arrays if name.lower() not in _LABELS]
    key = key or (others[0] if len(others) == 1 else None)
    if key is None:
        raise ValueError(
            f"{path} holds {', '.join(arrays) or 'nothing'}: the data must be named x, or be the only array "
            "besides the labels y"
        )
    x = _numbers(path, arrays[key])
    given = next((arrays[by_name[name]] for name in _LABELS if name in by_name), None)
    if given is None:
        return Table(x, _none(len(x)))
    _check_labels(path, given, len(x))
    return Table(x, *_labels(np.asarray(given).reshape(-1)))


def _none(number: int) -> NDArray[np.int64]:
    return np.full(number, -1, np.int64)


def _check_labels(path: Path, labels: Any, number: int) -> None:
    if np.asarray(labels).size != number:
        raise ValueError(f"{path} has {np.asarray(labels).size} labels for {number} rows")


def _labels(values: Array) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels counted from 0, and their names."""
    names, places = np.unique(values, return_inverse=True)
    return places.reshape(-1).astype(np.int64), tuple(str(name) for name in names)


def _numbers(path: Path, values: Any) -> Array:
    """An array of real numbers with rows."""
    array: Array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{path} must hold real numbers, got an array of {array.dtype}")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{path} must hold an array with one datapoint a row, got shape {list(array.shape)}")
    return array


def _npy(path: Path) -> Array:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array ({error})") from None


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as arrays ({error})") from None


def _pt(path: Path) -> Any:
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds, and its message advises to run code
        raise ValueError(
            f"{path} cannot be read as tensors ({type(error).__name__}); it must hold only tensors"
        ) from None
    if isinstance(found, tuple | list) and len(found) == 2:
        found = {"x": found[0], "y": found[1]}
    if isinstance(found, Tensor):
        found = {"x": found}
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} must hold a tensor, a pair of tensors or a dict of them")
    bfloat16 = torch.bfloat16
    return {
        str(name): (value.float() if value.dtype == bfloat16 else value.detach()).numpy()
        for name, value in found.items()
    }


def _csv(path: Path) -> dict[str, Array]:
    """Lines of numbers; the first line may hold names."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            start = file.readline()
            delimiter = next((mark for mark in (",", ";", "\t") if mark in start), ",")
            file.seek(0)
            lines = (
                (number, row) for number, row in enumerate(csv.reader(file, delimiter=delimiter), 1) if row
            )
            return _columns(path, list(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as lines of numbers ({error})") from None


def _columns(path: Path, lines: list[tuple[int, list[str]]]) -> dict[str, Array]:
    if not lines:
        raise ValueError(f"{path} is empty")
    head = [cell.strip().lower() for cell in lines[0][1]]
    is_named = not all(map(_is_number, head))
    label = next((i for i, name in enumerate(head) if name in _LABELS), None) if is_named else None
    rows, labels, width = [], [], len(head)
    for number, cells in lines[is_named:]:
        if len(cells) != width:
            raise ValueError(
                f"{path}, line {number} must have {width} columns, like the first line, got {len(cells)}"
            )
        for column, cell in enumerate(cells):
            if column != label and not _is_number(cell):
                raise ValueError(f"{path}, line {number}, column {column + 1} must be a number, got {cell!r}")
        rows.append(np.array([cell for i, cell in enumerate(cells) if i != label], np.float32))
        if label is not None:
            labels.append(cells[label].strip())
    if not rows:
        raise ValueError(f"{path} has a line of names but no numbers")
    found: dict[str, Array] = {"x": np.stack(rows)}
    return found if label is None else found | {"y": np.array(labels)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
