"""The arguments of `vaetut.train` as they were given, each checked by itself (chapter 11)."""

import numbers
from dataclasses import dataclass
from typing import Any

from vaetut._support.validate import one_of, positive_int


@dataclass(frozen=True)
class Arguments:
    """The arguments of `vaetut.train` as given, except the model and the data."""

    epochs: int
    batch_size: int
    num_samples: int
    bound: Any
    optimizer: Any
    learning_rate: Any
    scheduler: Any
    binarize: str
    drop_last: bool
    patience: int | None
    seed: int
    device: Any
    progress: Any
    on_epoch: Any
    checkpoint: Any
    resume: bool
    state: Any
    compile: bool
    precision: str
    fabric: Any

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_samples"):
            object.__setattr__(self, name, positive_int(getattr(self, name), name))
        if self.patience is not None:
            object.__setattr__(self, "patience", positive_int(self.patience, "patience"))
        one_of(self.binarize, "binarize", ("auto", "dynamic", "threshold", "none"))
        one_of(self.precision, "precision", ("highest", "high", "medium"))
        for name in ("resume", "compile", "drop_last"):
            _check_flag(getattr(self, name), name)
        object.__setattr__(self, "seed", _check_seed(self.seed))
        if not callable(self.bound):
            raise TypeError(
                f"bound must be a function such as vaetut.sgvb_b, got {type(self.bound).__name__}"
            )
        if self.scheduler is not None and not callable(self.scheduler):
            raise TypeError(
                "scheduler must be a function of the optimizer, such as "
                "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10), "
                f"got {type(self.scheduler).__name__}"
            )
        if self.on_epoch is not None and not callable(self.on_epoch):
            raise TypeError(f"on_epoch must be a function of the History, got {type(self.on_epoch).__name__}")
        if self.resume and self.checkpoint is None:
            raise ValueError("resume=True requires checkpoint, the path of the file to continue from")


def _check_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    if not -(2**63) <= int(seed) < 2**64:
        raise ValueError(f"seed must be at least -2**63 and less than 2**64, got {seed}")
    return int(seed)


def _check_flag(value: Any, name: str) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
