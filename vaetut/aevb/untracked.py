"""State that changes during a run and is in no checkpoint: counters in a closure, attributes of a bound, hooks.

`Watch` describes everything that the bound, the optimizer's hooks and a DataLoader's sampler refer to, before the
first step and again at each checkpoint. Whatever differs then may influence the next steps, and would be lost.
"""

import functools
import hashlib
import types
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions.utils import lazy_property
from torch.utils.data import DataLoader

_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, types.BuiltinFunctionType,
    torch.dtype, torch.device, torch.Size, np.generic, Enum,
)  # fmt: skip
_MOST = 10_000  # objects in one description


class Watch:
    """Which of the named objects have changed since this was constructed.

    Args:
        things: the objects, by the name used in messages.
        tracked: objects that the checkpoint holds; they are skipped. Globals of a module and the global random numbers
            of NumPy and Python are skipped too.
    """

    def __init__(self, things: dict[str, Any], tracked: Iterable[Any]) -> None:
        self.things = things
        self.tracked = {id(value): value for value in tracked}
        self.before = self._descriptions()

    def changed(self) -> list[str]:
        """The names of the changed objects."""
        now = self._descriptions()
        return [name for name, description in self.before.items() if now[name] != description]

    def _descriptions(self) -> dict[str, str]:
        return {name: describe(value, self.tracked) for name, value in self.things.items()}


def hooks(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The functions that an optimizer calls before and after each step, by name."""
    kinds = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    found = [hook for kind in kinds for hook in getattr(optimizer, kind, {}).values()]
    return {
        f"the optimizer's hook {i}, {getattr(hook, '__qualname__', type(hook).__name__)}": hook
        for i, hook in enumerate(found, 1)
    }


def samplers(loader: DataLoader[Any]) -> dict[str, Any]:
    """The samplers of a DataLoader that are not torch's own."""
    made = {id(sampler): sampler for sampler in (loader.sampler, loader.batch_sampler) if sampler is not None}
    own = [sampler for sampler in made.values() if not type(sampler).__module__.startswith("torch.")]
    return {f"the DataLoader's {type(sampler).__name__}": sampler for sampler in own}


def describe(value: Any, tracked: dict[int, Any]) -> str:
    """A text that changes if anything that ``value`` refers to changes."""
    words: list[str] = []
    seen: dict[int, Any] = {}
    waiting = [value]
    while waiting and len(seen) < _MOST:
        thing = waiting.pop()
        if id(thing) in tracked:
            continue
        if isinstance(thing, _PLAIN):
            words.append(repr(thing))
            continue
        if id(thing) in seen:
            words.append("again")
            continue
        seen[id(thing)] = thing
        words.append(type(thing).__name__)
        own, inner = _parts(thing)
        words.append(own)
        waiting += inner
    return hashlib.sha256("\n".join(words).encode(errors="replace")).hexdigest()


def _parts(thing: Any) -> tuple[str, list[Any]]:
    """The content of an object: as a text, and as further objects."""
    if isinstance(thing, Tensor | np.ndarray):
        array = thing.detach().cpu().numpy() if isinstance(thing, Tensor) else thing
        return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(), []
    if isinstance(thing, torch.Generator):
        return repr(thing.get_state().tolist()), []
    if isinstance(thing, np.random.Generator):
        return repr(thing.bit_generator.state), []
    if isinstance(thing, functools.partial):
        return "", [thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        return "", [thing.__func__, thing.__self__]
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if cell != types.CellType()]
        return thing.__qualname__, [*cells, thing.__defaults__, thing.__kwdefaults__, vars(thing)]
    if isinstance(thing, dict):
        return "", [*thing.keys(), *thing.values()]
    if isinstance(thing, list | tuple):
        return "", list(thing)
    state: Callable[[], Any] | None = getattr(thing, "getstate", None)  # random.Random
    if callable(state):
        return repr(state()), []
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    attributes = {
        name: getattr(thing, name) for name in names if isinstance(name, str) and hasattr(thing, name)
    }
    attributes |= {
        name: inner for name, inner in getattr(thing, "__dict__", {}).items() if not _is_cache(thing, name)
    }
    return "" if attributes else _text(thing), [*attributes.keys(), *attributes.values()]


def _is_cache(thing: Any, name: str) -> bool:
    return isinstance(getattr(type(thing), name, None), functools.cached_property | lazy_property)


def _text(thing: Any) -> str:
    return "" if getattr(type(thing), "__repr__", None) is object.__repr__ else repr(thing)
