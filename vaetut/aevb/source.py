"""The sources of minibatches: data on the device, rows that are read when they are needed, or a DataLoader."""

import hashlib
import mmap
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from vaetut._support.validate import finite, float_tensor

_ACCEPTED = "a torch.Tensor, a NumPy array, an ImageData, a Dataset or a DataLoader"
_SHARE = 0.5  # of a GPU's free memory that the data may use; larger data stay on the host
_MARKS = 1000  # rows of a memory-mapped array in its fingerprint


class Resident:
    """Data ``[N, D]`` that are completely on the device. A minibatch is a tensor of row *indices*."""

    def __init__(self, x: Tensor, given: Tensor) -> None:
        self.x, self.given = x, given

    def __len__(self) -> int:
        return len(self.x)

    def first(self) -> Tensor:
        """Two datapoints, or all if there are fewer."""
        return self.x[:2]

    def minibatches(
        self, order: Callable[[int, bool], Tensor], size: int, drop_last: bool
    ) -> Iterator[Tensor]:
        """The indices of each minibatch of one epoch, in a new order."""
        yield from _split(order(len(self.x), True), size, drop_last)

    def fingerprint(self) -> str:
        """Dtype, shape and the first half of the SHA-256 of the values."""
        values = self.given.detach().cpu().contiguous()
        return f"{form(self.given)} {hashlib.sha256(values.numpy().data).hexdigest()[:32]}"


class Rows:
    """Rows that are read and moved to the device one minibatch at a time. A minibatch is a tensor of *values*."""

    def __init__(self, read: Callable[[list[int]], Tensor], number: int, mark: Callable[[], str]) -> None:
        self.read, self.number, self.fingerprint = read, number, mark

    def __len__(self) -> int:
        return self.number

    def first(self) -> Tensor:
        """Two datapoints, or one if there is only one."""
        return self.read(list(range(min(2, self.number))))

    def minibatches(
        self, order: Callable[[int, bool], Tensor], size: int, drop_last: bool
    ) -> Iterator[Tensor]:
        """The values of each minibatch of one epoch, in a new order."""
        for index in _split(order(self.number, False), size, drop_last):
            yield self.read(index.tolist())

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All rows in order, in chunks."""
        for start in range(0, self.number, size):
            yield self.read(list(range(start, min(start + size, self.number))))


class Loader:
    """The minibatches of a DataLoader, which has its own order and batch size."""

    def __init__(self, loader: DataLoader[Any], prepare: Callable[[Any], Tensor]) -> None:
        self.loader, self.prepare = loader, prepare

    def __len__(self) -> int:
        dataset: Any = self.loader.dataset
        return 0 if isinstance(dataset, IterableDataset) else len(dataset)

    def first(self) -> Tensor:
        """Two datapoints, if they can be read without a step of the loader."""
        dataset: Any = self.loader.dataset
        if isinstance(dataset, IterableDataset):
            return next(self.chunks(2))[:2]
        return self.prepare(self.loader.collate_fn([dataset[i] for i in range(min(2, len(dataset)))]))

    def minibatches(
        self, order: Callable[[int, bool], Tensor], size: int, drop_last: bool
    ) -> Iterator[Tensor]:
        """The values of each minibatch of one epoch."""
        return self.chunks(size)

    def chunks(self, size: int) -> Iterator[Tensor]:
        """The loader's minibatches."""
        for item in self.loader:
            yield self.prepare(item)

    def fingerprint(self) -> str:
        """A description that does not read the data."""
        batches = getattr(self.loader, "batch_size", None), self.loader.drop_last
        return (
            f"DataLoader of {len(self)} {type(self.loader.dataset).__name__}, batch_size, drop_last {batches}"
        )

    def generators(self) -> list[torch.Generator]:
        """The loader's own generators, which determine its order."""
        samplers = (self.loader, self.loader.sampler, getattr(self.loader.batch_sampler, "sampler", None))
        found = {id(made): made for s in samplers if (made := getattr(s, "generator", None)) is not None}
        return list(found.values())

    def state_dict(self) -> dict[str, Any]:
        """The states of these generators."""
        return {"generators": [generator.get_state() for generator in self.generators()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the states of these generators."""
        for generator, value in zip(self.generators(), state["generators"], strict=True):
            generator.set_state(value)


Source = Resident | Rows | Loader


def open_source(data: Any, name: str, dtype: torch.dtype, bernoulli: bool, device: torch.device) -> Source:
    """The source of the minibatches of ``data``; raise if the model cannot take them."""

    def prepare(value: Any) -> Tensor:
        """A minibatch as the model takes it. It is checked on the host, so that no device has to be waited for."""
        x = value[0] if isinstance(value, tuple | list) else value
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{name} must give tensors, or tuples that begin with one, got {type(x).__name__}"
            )
        if x.is_floating_point() and x.dtype != dtype:
            x = x.to(dtype)
        checked = check_rows(x.flatten(1) if x.dim() > 2 else x, name, dtype, bernoulli)
        return (checked.pin_memory() if device.type == "cuda" else checked).to(device, non_blocking=True)

    if isinstance(data, DataLoader):
        return Loader(data, prepare)
    if isinstance(data, TensorDataset):
        data = data.tensors[0]
    if isinstance(data, np.memmap):
        return _memory_mapped(data, name, prepare)
    if isinstance(data, Dataset):
        return _dataset(data, name, prepare)
    if isinstance(data, np.ndarray):
        if data.dtype.kind != "f":
            raise TypeError(
                f"{name} must have dtype float32 or float64, got an array of {data.dtype}; "
                f"{name}.astype('float32') converts it"
            )
        data = torch.from_numpy(data if data.flags.writeable and data.flags.forc else data.copy())
        data = data.to(dtype) if data.is_floating_point() else data
    if not isinstance(data, Tensor):
        raise TypeError(f"{name} must be {_ACCEPTED}, got {type(data).__name__}")
    x = check_rows(data, name, dtype, bernoulli)
    if device.type == "cuda" and x.device.type == "cpu":
        free, _ = torch.cuda.mem_get_info(device)
        if x.nbytes > _SHARE * free:
            resident = Resident(x, data)
            return Rows(lambda index: x[index].to(device), len(x), resident.fingerprint)
    return Resident(x.to(device), data)


def check_rows(data: Any, name: str, dtype: torch.dtype, bernoulli: bool) -> Tensor:
    """Data ``[N, D]`` that a model with parameters of ``dtype`` can be trained on."""
    if isinstance(data, Tensor) and data.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got layout {data.layout}; {name}.to_dense() converts it")
    x = float_tensor(data, name)
    if x.dim() != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape [N, D] with N and D at least 1, got {tuple(x.shape)}")
    if x.requires_grad:
        raise ValueError(f"{name} must not require a gradient, since it is not trained; use {name}.detach()")
    if x.dtype != dtype:
        raise TypeError(
            f"{name} must have the dtype of the model's parameters, {dtype}, got {x.dtype}; "
            "model.float() or model.double() converts the model"
        )
    finite(x, name)
    smallest, largest = x.aminmax()  # one pass over possibly large data
    if bernoulli and bool((smallest < 0) | (largest > 1)):
        raise ValueError(
            f"{name} must lie in [0, 1] for a Bernoulli likelihood, got values from {float(smallest):g} to "
            f"{float(largest):g}; divide 8-bit pixels by 255"
        )
    return x


def warn_of_constant_columns(x: Tensor) -> None:
    """Warn of constant columns, for which a Gaussian density has no upper limit."""
    low, high = x.aminmax(dim=0)
    constant = (low == high).nonzero().flatten().tolist() if len(x) > 1 else []
    if constant:
        warnings.warn(
            f"{len(constant)} of {x.shape[1]} columns of data are constant, the first is {constant[0]}: a Gaussian "
            "likelihood whose variance is learned has no upper limit there, and the bound becomes meaningless. "
            "Leave these columns out, or add noise to them",
            stacklevel=6,  # the caller of train
        )


def form(value: Any) -> str:
    """Dtype and shape of a tensor; the type of anything else."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _split(order: Tensor, size: int, drop_last: bool) -> Iterator[Tensor]:
    for index in torch.split(order, size):
        if len(index) == size or not drop_last:
            yield index


def _memory_mapped(array: Any, name: str, prepare: Callable[[Any], Tensor]) -> Rows:
    """An array in a file, of which one minibatch at a time is in memory."""
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape [N, D] with N and D at least 1, got {array.shape}")
    layout = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"

    def read(index: list[int]) -> Tensor:
        rows = array
        if isinstance(array.base, mmap.mmap) and array.filename:  # and not a view of another array
            # A new map for each minibatch: the pages that a map has touched count as memory until it is closed.
            place: dict[str, Any] = {"offset": array.offset, "shape": array.shape, "order": layout}
            rows = np.memmap(array.filename, array.dtype, mode="r", **place)
        return prepare(torch.from_numpy(np.array(rows[index])))

    def fingerprint() -> str:
        chosen = sorted({i * (len(array) - 1) // max(_MARKS - 1, 1) for i in range(_MARKS)})
        digest = hashlib.sha256()
        for start in range(0, len(chosen), 100):
            digest.update(read(chosen[start : start + 100]).cpu().numpy().tobytes())
        return f"{array.dtype.name} {list(array.shape)} {digest.hexdigest()[:32]} of {len(chosen)} rows"

    return Rows(read, len(array), fingerprint)


def _dataset(data: Any, name: str, prepare: Callable[[Any], Tensor]) -> Rows:
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise TypeError(
            f"{name} must have a length and items by their index, got the {type(data).__name__}; "
            "use a torch.utils.data.DataLoader of it"
        )
    if len(data) == 0:
        raise ValueError(f"{name} must have at least one item, got an empty {type(data).__name__}")

    def read(index: list[int]) -> Tensor:
        items = data.__getitems__(index) if hasattr(data, "__getitems__") else [data[i] for i in index]
        rows = [item[0] if isinstance(item, tuple | list) else item for item in items]
        for row in rows:
            if not isinstance(row, Tensor | np.ndarray):
                raise TypeError(
                    f"{name} must have tensors as items, or tuples that begin with one, got {type(row).__name__}"
                )
        return prepare(torch.stack([torch.as_tensor(row).flatten() for row in rows]))

    return Rows(read, len(data), lambda: f"{type(data).__name__} of {len(data)}")
