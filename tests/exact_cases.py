"""Models whose evidence and bounds are known exactly, two datapoints of each, and a q that is not the posterior."""

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, OneHotCategorical

from vaetut import DiscreteMixture, LinearGaussian

DOUBLE = torch.float64


def d(value: object) -> Tensor:
    return torch.as_tensor(value, dtype=DOUBLE)


def linear_gaussian() -> LinearGaussian:
    return LinearGaussian(d([[1.0, 0.2], [-0.5, 0.8], [0.3, 0.3]]), d([0.1, -0.2, 0.5]), 0.6)


def discrete_mixture() -> DiscreteMixture:
    return DiscreteMixture(d([0.2, -0.5]), d([[-2.0, 0.0], [0.5, 1.0]]), d([[0.5, 1.0], [0.7, 0.7]]))


X = d([[0.4, -1.0, 0.3], [2.0, 0.1, -0.7]])
X2 = d([[0.4, -1.0], [-1.0, 0.1]])


def gaussian_q() -> Independent:
    return Independent(Normal(d([[0.5, -0.3], [1.0, 0.2]]), d([[0.6, 0.5], [0.4, 0.7]])), 1)


def discrete_q() -> OneHotCategorical:
    return OneHotCategorical(probs=d([[0.3, 0.7], [0.2, 0.8]]))
