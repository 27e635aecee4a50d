"""The learning curves that `vaetut.train` returns."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What `train` returns: the bound, in nats per datapoint, after each epoch (chapter 11).

    Attributes:
        train: the mean of the bounds of the epoch's minibatches, each before its own step; the parameters of the early
            ones are almost an epoch older than those at the end.
        validation: the mean over the validation data, with the parameters at the end of the epoch; empty
            without such data.

    Example:
        >>> History(train=[-30.0, -25.0])
        History(train=[-30.0, -25.0], validation=[])
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, with the largest validation bound, the first of several; None without such data.

        Example:
            >>> History(train=[-30.0, -25.0, -24.0], validation=[-31.0, -26.0, -27.0]).best_epoch
            2
        """
        return 1 + self.validation.index(max(self.validation)) if self.validation else None

    def to_dict(self) -> dict[str, list[float]]:
        """The curves as plain lists, for ``json.dump``.

        Example:
            >>> History(train=[-30.0, -25.0]).to_dict()
            {'train': [-30.0, -25.0], 'validation': []}
        """
        return {"train": list(self.train), "validation": list(self.validation)}

    def plot(self) -> Any:
        """The curves over the epochs, a matplotlib figure; higher is better."""
        from vaetut.teaching.plots import learning_curve

        return learning_curve({name: values for name, values in self.to_dict().items() if values})
