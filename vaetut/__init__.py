"""The method of the variational auto-encoder, in small functions on `torch.distributions` objects.

Each module belongs to a chapter of the book of the same name, <https://github.com/vaetut/vaetut>.
"""

from vaetut import distributions, reparam
from vaetut.aevb import History, train
from vaetut.bounds import (
    ElboTerms,
    cubo_bound,
    doubly_reparameterized,
    elbo_terms,
    iwae_bound,
    log_evidence,
    minibatch_bound,
    sgvb_a,
    sgvb_b,
    sticking_the_landing,
)
from vaetut.data import ImageData, binarize, load
from vaetut.exact import DiscreteMixture, LatentVariableModel, LinearGaussian
from vaetut.gradients import (
    GradientStatistics,
    gradient_statistics,
    measure_valued,
    pathwise,
    score_function,
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
from vaetut.teaching import plots
from vaetut.teaching.explore import Explorer, explore
from vaetut.teaching.verify import VerificationError, verify

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
