"""The pathwise estimator of a gamma variable, against exact moments by quadrature."""

import numpy as np
import scipy.special as sp
import torch
from estimator_cases import N, check, moments
from torch.distributions import (
    Gamma,
)

from vaetut.gradients import gradient_statistics, pathwise


def test_gamma_pathwise():
    """The implicit gradient in the shape, with f = log² z: its moments by quadrature over z."""
    a = np.array([0.7, 2.5])
    s = np.linspace(-60, 5, 4_001)[:, None]  # z = e^s
    z = np.exp(s)
    density = np.exp(a * s - z - sp.gammaln(a)) * (s[1] - s[0])
    h = 1e-5
    dF = (sp.gammainc(a + h, z) - sp.gammainc(a - h, z)) / (2 * h)
    upper = -(sp.gammaincc(a + h, z) - sp.gammaincc(a - h, z)) / (2 * h)
    dF = np.where(z > a, upper, dF)  # differences of small numbers, not of numbers near one
    with np.errstate(all="ignore"):
        dz = -dF / np.exp((a - 1) * s - z - sp.gammaln(a))
        value = np.nan_to_num(2 * s / z * dz)
    value[density < 1e-200] = 0
    keep = (s > -25)[:, 0]  # further out, dz/z is 1/a² to the last digit, and the density has no weight
    mean, variance, _ = moments(value[keep], density[keep])
    truth = sp.polygamma(2, a) + 2 * sp.digamma(a) * sp.polygamma(1, a)  # of ψ'(a) + ψ(a)²
    np.testing.assert_allclose(mean, truth, rtol=1e-4)
    # in float32 the package takes torch's own gradient, which is fast; in float64 an exact quadrature
    params = {"concentration": torch.from_numpy(a).float(), "rate": torch.ones(2)}
    found = gradient_statistics(pathwise, lambda z: z.log() ** 2, Gamma, params, N)
    check(found["concentration"], truth, variance)
    check(found["rate"], -2 * sp.digamma(a), 4 * sp.polygamma(1, a))  # f' z = 2 log z
