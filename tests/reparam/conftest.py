import pytest
from torch.distributions import Distribution


@pytest.fixture
def unchecked():
    """Without torch's argument checks, which read values: parts of Student's t and F have their own."""
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(True)
