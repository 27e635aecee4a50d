import pytest
from torch.distributions import Distribution


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: ten million draws, or generated code")


@pytest.fixture(autouse=True)
def arguments_are_checked():
    """torch.compile switches the checks of all distributions off, for good: here each test starts with them on."""
    Distribution.set_default_validate_args(True)
