"""One distribution for every row of `catalogue()`: its parameters, and how it is made of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from reparam_cases import UNIVARIATE
from torch import Tensor
from torch import distributions as td

from vaetut import distributions as vd
from vaetut.reparam import catalogue


class Made(NamedTuple):
    """``params`` without the batch, and the distribution that they make; ``copied``: it holds no views of them."""

    params: dict[str, Any]
    make: Callable[..., td.Distribution]
    copied: bool = False


def mixture(logits: Tensor, loc: Tensor, scale: Tensor, **options: Any) -> td.Distribution:
    weights = td.Categorical(logits=logits, **options)
    return td.MixtureSameFamily(weights, td.Normal(loc, scale, **options), **options)


def elliptical(sigma: Tensor, loc: Tensor, scale_tril: Tensor, **options: Any) -> td.Distribution:
    return vd.Elliptical(vd.Rayleigh(sigma, **options), loc, scale_tril, **options)


def shifted(loc: Tensor, scale: Tensor, **options: Any) -> td.Distribution:
    return td.TransformedDistribution(
        td.Normal(loc, scale, **options), [td.TanhTransform(), td.AffineTransform(1.0, 2.0)], **options
    )


def inverse_gamma(concentration: Tensor, rate: Tensor, **options: Any) -> td.Distribution:
    return td.InverseGamma(concentration, rate, **options)


def truncated(low: Tensor, high: Tensor, loc: Tensor, scale: Tensor, **options: Any) -> td.Distribution:
    return vd.Truncated(td.Normal(loc, scale, **options), low, high, **options)


LOC, TRIL = [0.3, -1.0], [[1.2, 0.0], [0.6, 0.5]]
CASES: dict[type[td.Distribution], Made] = {
    case.kind: Made({name: float(value) for name, value in case.params.items()}, case.kind)
    for case in UNIVARIATE
} | {
    td.Chi2: Made({"df": 3.0}, td.Chi2, copied=True),
    td.Beta: Made({"concentration1": 1.6, "concentration0": 0.7}, td.Beta, copied=True),
    td.MultivariateNormal: Made(
        {"loc": LOC, "scale_tril": TRIL},
        lambda loc, scale_tril, **options: td.MultivariateNormal(loc, scale_tril=scale_tril, **options),
    ),
    td.LowRankMultivariateNormal: Made(
        {"loc": LOC, "cov_factor": [[0.8], [-0.5]], "cov_diag": [0.3, 0.9]}, td.LowRankMultivariateNormal
    ),
    vd.MultivariateStudentT: Made({"df": 3.4, "loc": LOC, "scale_tril": TRIL}, vd.MultivariateStudentT),
    vd.Elliptical: Made({"sigma": 1.3, "loc": LOC, "scale_tril": TRIL}, elliptical),
    td.Dirichlet: Made({"concentration": [0.4, 1.7, 3.0]}, td.Dirichlet),
    td.RelaxedBernoulli: Made(
        {"temperature": 0.7, "logits": 0.4},
        lambda temperature, logits, **options: td.RelaxedBernoulli(temperature, logits=logits, **options),
    ),
    td.RelaxedOneHotCategorical: Made(
        {"temperature": [0.7], "logits": [0.4, -1.0, 0.1]},
        lambda temperature, logits, **options: td.RelaxedOneHotCategorical(
            temperature, logits=logits, **options
        ),
        copied=True,
    ),
    vd.Truncated: Made({"low": 0.4, "high": 2.1, "loc": 0.2, "scale": 0.9}, truncated),
    td.TransformedDistribution: Made({"loc": 0.2, "scale": 0.9}, shifted),
    td.VonMises: Made({"loc": 0.4, "concentration": 1.3}, td.VonMises),
    td.MixtureSameFamily: Made(
        {"logits": [0.2, -0.3], "loc": [-1.0, 1.5], "scale": [0.7, 1.1]}, mixture, copied=True
    ),
    td.Distribution: Made({"concentration": 2.3, "rate": 1.4}, inverse_gamma),
}

ROWS = [
    (row.distribution, row.family)
    for row in catalogue()
    if row.distribution.__module__.startswith(("torch.", "vaetut."))
]


def tensors(
    kind: type[td.Distribution],
    dtype: torch.dtype = torch.float64,
    shape: tuple[int, ...] = (),
    device: str = "cpu",
) -> dict[str, Tensor]:
    """The parameters of a case in a batch of ``shape``."""
    values = {}
    for name, value in CASES[kind].params.items():
        one = torch.tensor(value, dtype=dtype, device=device)
        values[name] = one.expand((*shape, *one.shape)).contiguous()
    return values


# Where torch's class draws from what it derived from its parameters when it was made.
DERIVED = [(td.StudentT, "implicit"), (td.FisherSnedecor, "implicit"), (td.VonMises, "implicit")]


def ids(row: Any) -> str:
    return f"{row[0].__name__}-{row[1]}"
