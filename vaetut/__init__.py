"""The method of the variational auto-encoder, in small functions on `torch.distributions` objects.

Each module belongs to a chapter of the book of the same name, <https://github.com/vaetut/vaetut>.
"""

from vaetut import distributions, plots, reparam
from vaetut.aevb import History, train
from vaetut.bounds import (
    ElboTerms,
    cubo_bound,
    elbo_terms,
    iwae_bound,
    log_evidence,
    minibatch_bound,
    sgvb_a,
    sgvb_b,
)
from vaetut.data import ImageData, binarize, load
from vaetut.exact import DiscreteMixture, LatentVariableModel, LinearGaussian
from vaetut.explore import Explorer, explore
from vaetut.gradients import (
    GradientStatistics,
    doubly_reparameterized,
    gradient_statistics,
    measure_valued,
    pathwise,
    score_function,
    sticking_the_landing,
)
from vaetut.information import (
    Estimate,
    cross_entropy,
    entropy,
    kl_divergence,
    monte_carlo,
    monte_carlo_cross_entropy,
    monte_carlo_entropy,
    monte_carlo_kl,
)
from vaetut.models import VAE
from vaetut.quadrature import expectation, integrate
from vaetut.reparam import catalogue, families, register_reparameterization, reparameterize
from vaetut.verify import VerificationError, verify

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "DiscreteMixture",
    "ElboTerms",
    "Estimate",
    "Explorer",
    "GradientStatistics",
    "History",
    "ImageData",
    "LatentVariableModel",
    "LinearGaussian",
    "VerificationError",
    "binarize",
    "catalogue",
    "cross_entropy",
    "cubo_bound",
    "distributions",
    "doubly_reparameterized",
    "elbo_terms",
    "entropy",
    "expectation",
    "explore",
    "families",
    "gradient_statistics",
    "integrate",
    "iwae_bound",
    "kl_divergence",
    "load",
    "log_evidence",
    "measure_valued",
    "minibatch_bound",
    "monte_carlo",
    "monte_carlo_cross_entropy",
    "monte_carlo_entropy",
    "monte_carlo_kl",
    "pathwise",
    "plots",
    "register_reparameterization",
    "reparam",
    "reparameterize",
    "score_function",
    "sgvb_a",
    "sgvb_b",
    "sticking_the_landing",
    "train",
    "verify",
]
