"""torch's random numbers in a run: they start from a seed, and at the end the previous state is restored.

The draws of `torch.distributions` always come from torch's global generators, so two runs in threads of one process
would take each other's numbers. `one_run_at_a_time` makes the second wait for the first.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CPU = torch.device("cpu")

_lock = threading.RLock()  # reentrant: a bound may itself train another model


@contextmanager
def one_run_at_a_time() -> Iterator[None]:
    """Only one thread of the process is inside of this block; the others wait."""
    with _lock:
        yield


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """torch's random numbers on the CPU and on ``device`` start from ``seed``; their state is restored at the end."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for cuda_device in devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def unchanged(device: torch.device = CPU) -> Iterator[None]:
    """Restore the random state at the end, so that draws inside of the block have no effect on later ones."""
    states = random_state(device)
    try:
        yield
    finally:
        set_random_state(states, device)


def random_state(device: torch.device) -> list[Tensor]:
    """The states of torch's random numbers on the CPU and, if ``device`` is a GPU, on that."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """Set what `random_state` returned. (The state of a CPU run does not change a GPU's random numbers.)"""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
