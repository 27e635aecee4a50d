"""The exact models that the tests of the bounds share."""

import pytest
from exact_cases import discrete_mixture, linear_gaussian


@pytest.fixture
def model():
    return linear_gaussian()


@pytest.fixture
def mixture():
    return discrete_mixture()
