"""What the tests of the command line share."""

import pytest
import torch

from vaetut.models import VAE


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
