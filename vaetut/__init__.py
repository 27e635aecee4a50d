"""The method of the variational auto-encoder, in small functions on `torch.distributions` objects.

Each module belongs to a chapter of the book of the same name, <https://github.com/vaetut/vaetut>.
"""

from vaetut import distributions, plots, reparam
from vaetut.aevb import History, train
from vaetut.bounds import ElboTerms, elbo_terms, log_evidence, sgvb_a, sgvb_b
from vaetut.data import ImageData, binarize, load
from vaetut.exact import DiscreteMixture, LatentVariableModel, LinearGaussian
from vaetut.explore import Explorer, explore
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
    "History",
    "ImageData",
    "LatentVariableModel",
    "LinearGaussian",
    "VerificationError",
    "binarize",
    "catalogue",
    "cross_entropy",
    "distributions",
    "elbo_terms",
    "entropy",
    "expectation",
    "explore",
    "families",
    "integrate",
    "kl_divergence",
    "load",
    "log_evidence",
    "monte_carlo",
    "monte_carlo_cross_entropy",
    "monte_carlo_entropy",
    "monte_carlo_kl",
    "plots",
    "register_reparameterization",
    "reparam",
    "reparameterize",
    "sgvb_a",
    "sgvb_b",
    "train",
    "verify",
]
