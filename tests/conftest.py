"""What all tests share: figures are drawn into memory, and one thread computes, as in the book."""

import matplotlib
import pytest
import torch
from torch.distributions import Distribution

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same random state and the same defaults, whatever ran before it.

    torch.compile switches the argument checks of all distributions off, for good.
    """
    Distribution.set_default_validate_args(True)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)
