"""Distributions that `torch.distributions` lacks, as drop-in classes, and Kullback–Leibler divergences with them.

Eight are in the lists of AEVB section 2.4 (Kingma and Welling, 2013), Student's t in its multivariate form; chapters 7
to 9 of the book derive how each is sampled. `Truncated` restricts any univariate distribution to an interval. All can
be used like torch distributions: in `Independent`, `TransformedDistribution`, `MixtureSameFamily` and
`torch.distributions.kl_divergence`, and in Pyro through ``class PyroLogistic(Logistic, TorchDistributionMixin): pass``.

Importing this package registers divergences with torch, of which 82 are between two of torch's own classes, such as
KL(Weibull ‖ Gamma): see `vaetut.distributions.kl`.
"""

from vaetut.distributions import kl  # registers its divergences with torch
from vaetut.distributions.elliptical import Elliptical
from vaetut.distributions.erlang import Erlang
from vaetut.distributions.gompertz import Gompertz
from vaetut.distributions.logistic import Logistic
from vaetut.distributions.multivariate_student_t import MultivariateStudentT
from vaetut.distributions.rayleigh import Rayleigh
from vaetut.distributions.reciprocal import Reciprocal
from vaetut.distributions.triangular import Triangular
from vaetut.distributions.truncated import Truncated

__all__ = [
    "Elliptical",
    "Erlang",
    "Gompertz",
    "Logistic",
    "MultivariateStudentT",
    "Rayleigh",
    "Reciprocal",
    "Triangular",
    "Truncated",
    "kl",
]
