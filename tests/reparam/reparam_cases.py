"""The distributions that the tests of this folder run over, each beside its scipy counterpart."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats as st
import torch
from torch import distributions as td

from vaetut import distributions as vd


class Case(NamedTuple):
    kind: type[td.Distribution]
    params: dict[str, float]
    scipy: Callable[..., Any]  # values of params -> a frozen scipy distribution


def triangular(low, high, peak):
    return st.triang((peak - low) / (high - low), low, high - low)


class _Gompertz:
    """scipy's gompertz loses both tails; this is log1p(−log(1 − u) / c) / b with numpy's own functions."""

    def __init__(self, concentration, rate):
        self.c, self.b = concentration, rate

    def cdf(self, x):
        return -np.expm1(-self.c * np.expm1(self.b * x))

    def ppf(self, u):
        return np.log1p(-np.log1p(-u) / self.c) / self.b

    def isf(self, u):
        return np.log1p(-np.log(u) / self.c) / self.b


def kumaraswamy(concentration1, concentration0):
    a, b = concentration1, concentration0

    class Kumaraswamy:
        cdf = staticmethod(lambda x: -np.expm1(b * np.log1p(-(x**a))))
        ppf = staticmethod(lambda u: (-np.expm1(np.log1p(-u) / b)) ** (1 / a))
        isf = staticmethod(lambda u: (-np.expm1(np.log(u) / b)) ** (1 / a))

    return Kumaraswamy


UNIVARIATE = [
    Case(td.Exponential, {"rate": 1.7}, lambda rate: st.expon(scale=1 / rate)),
    Case(td.Cauchy, {"loc": 0.4, "scale": 1.3}, st.cauchy),
    Case(vd.Logistic, {"loc": 0.4, "scale": 1.3}, st.logistic),
    Case(vd.Rayleigh, {"scale": 1.3}, lambda scale: st.rayleigh(scale=scale)),
    Case(td.Pareto, {"scale": 0.7, "alpha": 2.3}, lambda scale, alpha: st.pareto(alpha, scale=scale)),
    Case(td.Weibull, {"scale": 0.7, "concentration": 1.6}, lambda scale, concentration: st.weibull_min(
        concentration, scale=scale)),
    Case(vd.Reciprocal, {"low": 0.3, "high": 5.0}, st.reciprocal),
    Case(vd.Gompertz, {"concentration": 0.8, "rate": 1.4}, _Gompertz),
    Case(td.Gumbel, {"loc": 0.4, "scale": 1.3}, st.gumbel_r),
    Case(td.Laplace, {"loc": 0.4, "scale": 1.3}, st.laplace),
    Case(td.StudentT, {"df": 3.4, "loc": 0.4, "scale": 1.3}, st.t),
    Case(td.Uniform, {"low": -0.3, "high": 2.2}, lambda low, high: st.uniform(low, high - low)),
    Case(vd.Triangular, {"low": -0.3, "high": 2.2, "peak": 0.5}, triangular),
    Case(td.Normal, {"loc": 0.4, "scale": 1.3}, st.norm),
    Case(td.LogNormal, {"loc": 0.4, "scale": 0.6}, lambda loc, scale: st.lognorm(scale, scale=math.exp(loc))),
    Case(td.Gamma, {"concentration": 3.0, "rate": 1.7}, lambda concentration, rate: st.gamma(
        concentration, scale=1 / rate)),
    Case(vd.Erlang, {"concentration": 3, "rate": 1.7}, lambda concentration, rate: st.gamma(
        concentration, scale=1 / rate)),
    Case(td.Chi2, {"df": 3.0}, st.chi2),
    Case(td.Beta, {"concentration1": 1.6, "concentration0": 0.7}, st.beta),
    Case(td.FisherSnedecor, {"df1": 3.4, "df2": 6.2}, st.f),
    Case(td.HalfNormal, {"scale": 1.3}, lambda scale: st.halfnorm(scale=scale)),
    Case(td.HalfCauchy, {"scale": 1.3}, lambda scale: st.halfcauchy(scale=scale)),
    Case(td.Kumaraswamy, {"concentration1": 1.6, "concentration0": 0.7}, kumaraswamy),
]  # fmt: skip

# Other parameters that a map could go wrong at.
EDGES = [
    Case(vd.Triangular, {"low": 0.0, "high": 1.0, "peak": 0.0}, triangular),
    Case(vd.Triangular, {"low": 0.0, "high": 1.0, "peak": 1.0}, triangular),
    Case(td.Weibull, {"scale": 1.0, "concentration": 0.1}, lambda scale, concentration: st.weibull_min(
        concentration, scale=scale)),
    Case(vd.Reciprocal, {"low": 1e-30, "high": 1e30}, st.reciprocal),
    Case(vd.Gompertz, {"concentration": 1e-25, "rate": 1.0}, _Gompertz),
    Case(vd.Gompertz, {"concentration": 1e8, "rate": 1.0}, _Gompertz),
    Case(td.Pareto, {"scale": 1.0, "alpha": 0.5}, lambda scale, alpha: st.pareto(alpha, scale=scale)),
    Case(td.Beta, {"concentration1": 0.02, "concentration0": 0.6}, st.beta),
    Case(td.FisherSnedecor, {"df1": 0.5, "df2": 300.0}, st.f),
    Case(td.StudentT, {"df": 1e7, "loc": 0.0, "scale": 1.0}, lambda df, loc, scale: st.norm()),
]  # fmt: skip


def make(
    case: Case, dtype: torch.dtype = torch.float64, *, grad: tuple[str, ...] = (), **options
) -> td.Distribution:
    """The distribution of a case, with leaves for the parameters in ``grad``."""
    values = {}
    for name, value in case.params.items():
        values[name] = torch.tensor(value, dtype=dtype, requires_grad=name in grad)
    return case.kind(**values, **options)


def name_of(case: Case) -> str:
    return case.kind.__name__
