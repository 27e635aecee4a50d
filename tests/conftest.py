"""What all tests share: figures are drawn into memory, and one thread computes, as in the book."""

import matplotlib
import pytest
import torch

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same random state and the default dtype, whatever ran before it."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)
