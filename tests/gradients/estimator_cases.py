"""Exact moments of the estimators' gradients on a grid, by quadrature, and how to measure against them."""

import math

import numpy as np
import torch
from torch.distributions import (
    Normal,
)

from vaetut.gradients import gradient_statistics, measure_valued, pathwise, score_function

N = 100_000
ROOT = math.sqrt(2 * math.pi)

# Quadrature: nodes and probabilities of each noise that an estimator draws


def rule(density, low, high, points=200):
    nodes, weights = np.polynomial.legendre.leggauss(points)
    nodes = (nodes + 1) / 2 * (high - low) + low
    return nodes, weights * (high - low) / 2 * density(nodes)


GAUSS = rule(lambda e: np.exp(-(e**2) / 2) / ROOT, -13, 13)
RAYLEIGH = rule(lambda w: w * np.exp(-(w**2) / 2), 0, 13)
MAXWELL = rule(lambda m: m**2 * np.exp(-(m**2) / 2) / ROOT, -13, 13)
UNIFORM = rule(np.ones_like, 0, 1, 80)


def product(first, second):
    a, b = (g[..., None] for g in np.meshgrid(first[0], second[0], indexing="ij"))
    return a.reshape(-1, 1), b.reshape(-1, 1), np.outer(first[1], second[1]).reshape(-1, 1)


def moments(value, probability):
    """Mean, variance and fourth central moment over the nodes (the first axis)."""
    mean = (probability * value).sum(0)
    variance, fourth = ((probability * (value - mean) ** k).sum(0) for k in (2, 4))
    return mean, variance, fourth


# The grid: every cost at every mean, scale and k. Each cost has its derivative beside it.

MU, SIGMA, K = (a.reshape(-1) for a in np.meshgrid([-0.5, 1.0], [0.5, 1.5], [0.25, 1.0, 4.0], indexing="ij"))
COSTS = {
    "square": (lambda z, k, m: (z - k) ** 2, lambda z, k, m: 2 * (z - k)),
    "cubic": (lambda z, k, m: z**3 - k * z, lambda z, k, m: 3 * z**2 - k),
    # the exponent is tamed, so that the fourth moment of an estimator is no rare event's
    "exponential": (lambda z, k, m: m.exp(-0.1 * k * z), lambda z, k, m: -0.1 * k * m.exp(-0.1 * k * z)),
    "cosine": (lambda z, k, m: m.cos(k * z), lambda z, k, m: -k * m.sin(k * z)),
}


def exact(name, cost):
    """Moments of the gradients in loc and in scale of one draw, from the formulas and not from the package."""
    f, slope = (lambda z, g=g: g(z, K, np) for g in COSTS[cost])
    e, p = (a[:, None] for a in GAUSS)
    z = MU + SIGMA * e
    if name == "score":
        return moments(f(z) * e / SIGMA, p), moments(f(z) * (e**2 - 1) / SIGMA, p)
    if name == "pathwise":
        return moments(slope(z), p), moments(slope(z) * e, p)
    if name == "measure, coupled":
        w, pw = (a[:, None] for a in RAYLEIGH)
        loc = moments((f(MU + SIGMA * w) - f(MU - SIGMA * w)) / (SIGMA * ROOT), pw)
        # another coupling of the same law: a Maxwell number times a uniform one is Gaussian
        m, u, pm = product(MAXWELL, UNIFORM)
        return loc, moments((f(MU + SIGMA * m) - f(MU + SIGMA * m * u)) / SIGMA, pm)
    plus, minus, pw = product(RAYLEIGH, RAYLEIGH)
    loc = moments((f(MU + SIGMA * plus) - f(MU - SIGMA * minus)) / (SIGMA * ROOT), pw)
    m, e, pm = product(MAXWELL, GAUSS)
    return loc, moments((f(MU + SIGMA * m) - f(MU + SIGMA * e)) / SIGMA, pm)


ESTIMATORS = {
    "score": (score_function, {}),
    "pathwise": (pathwise, {}),
    "measure, coupled": (measure_valued, {}),
    "measure, uncoupled": (measure_valued, {"coupled": False}),
}


def measured(estimator, cost, n=N, **options):
    f, k = COSTS[cost][0], torch.from_numpy(K)
    params = {"loc": torch.from_numpy(MU), "scale": torch.from_numpy(SIGMA)}
    found = gradient_statistics(estimator, lambda z: f(z, k, torch), Normal, params, n, **options)
    return found["loc"], found["scale"]


def z_scores(found, moments, n=N):
    """Mean and variance in exact standard errors, which no outlier of this run can blow up."""
    mean, variance, fourth = (torch.from_numpy(np.asarray(a, dtype=float)) for a in moments)
    error = (variance / n).sqrt().clamp_min(1e-12)
    error_of_variance = ((fourth - variance**2) / n).sqrt().clamp_min(1e-12)
    return (found.mean - mean) / error, (found.variance - variance) / error_of_variance


def check(found, mean, variance):
    mean, variance = (torch.as_tensor(np.asarray(a)) for a in (mean, variance))
    assert ((found.mean - mean) / found.standard_error).abs().max() < 5
    assert ((found.variance - variance) / found.variance_standard_error).abs().max() < 5


# Every estimator with its options
CASES = [(score_function, {}), (pathwise, {}), (measure_valued, {})]
CASES += [(score_function, {"baseline": b}) for b in ("mean", "leave_one_out", "optimal")]
