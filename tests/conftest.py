"""What all tests share: figures are drawn into memory, every test starts alike, some are marked slow from a list."""

import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from hypothesis import HealthCheck, settings
from in_browser import chromium
from torch.distributions import Distribution

from vaetut.models import VAE

matplotlib.use("agg")
# The same examples in every run, however busy the machine is.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
SLOW = (Path(__file__).parent / "slow.txt").read_text().split("\n\n", 1)[1].splitlines()


def listed_as_slow(function, case):
    """Whether a line of slow.txt is this function, or function[part] with a part of this case's id."""
    found = [line.removesuffix("]").partition("[") for line in SLOW if line.partition("[")[0] == function]
    return any(part in case for _, _, part in found)


def pytest_collection_modifyitems(items):
    book = Path(__file__).parent / "book"
    for item in items:
        if book in item.path.parents:
            item.add_marker(pytest.mark.book)
        function = getattr(item, "originalname", None) or item.name  # a doctest has a dotted name alone
        if listed_as_slow(function, item.name.removeprefix(function)):
            item.add_marker(pytest.mark.slow)
        if {"browser", "visit"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")  # not longer: two of playwright's loops cannot run at once
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def unchecked():
    """Without torch's argument checks, which read values: parts of Student's t and F have their own."""
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(True)


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same random state, defaults and no open figure, whatever ran before it.

    torch.compile switches the argument checks of all distributions off, for good.
    """
    Distribution.set_default_validate_args(True)
    torch.default_generator.manual_seed(0)  # torch.manual_seed also keeps its caller's stack, which is slow
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
    torch.set_default_dtype(torch.float32)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def stop_in_step(monkeypatch):
    """A function of a step's number: Ctrl-C when x is encoded for the training step after it."""

    def stop(step):
        encode, taken = VAE.encode, 0

        def counted(self, x):
            nonlocal taken
            taken += torch.is_grad_enabled()
            if taken > step:
                raise KeyboardInterrupt
            return encode(self, x)

        monkeypatch.setattr(VAE, "encode", counted)

    return stop
