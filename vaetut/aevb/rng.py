"""torch's random numbers while a model is trained: they start from a seed, and afterwards are what they were.

The draws of `torch.distributions` come from torch's global generators and from no other, so two runs in threads of one
process would take each other's numbers. `one_run_at_a_time` makes the second wait for the first.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_lock = threading.RLock()  # of the thread: a bound may itself train another model


@contextmanager
def one_run_at_a_time() -> Iterator[None]:
    """Only one thread of the process is inside of this block; the others wait."""
    with _lock:
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's random numbers on the CPU and on ``device`` start from ``seed``; afterwards they go on as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for cuda_device in devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def unchanged(device: torch.device) -> Iterator[None]:
    """The random numbers that are drawn inside are drawn again afterwards."""
    states = random_state(device)
    try:
        yield
    finally:
        set_random_state(states, device)


def random_state(device: torch.device) -> list[Tensor]:
    """The states of torch's random numbers on the CPU and, where there is one, on the GPU ``device``."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """Go on from what `random_state` gave; from that of a CPU, a GPU's own random numbers go on as they are."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
