"""The method of the variational auto-encoder, in small functions on `torch.distributions` objects.

The code of each chapter of the book is in one place:

==============================  ==================================================
chapter (book/)                 module
==============================  ==================================================
00-a-vae-in-half-an-hour        none: plain PyTorch
01-latent-variable-models       `vaetut.exact`, `vaetut.quadrature`
02-variational-lower-bound      `vaetut.bounds.elbo`
03-entropy-cross-entropy-kl     `vaetut.information`
04-gradients-of-expectations    `vaetut.gradients`
05-sgvb                         `vaetut.bounds.elbo`
06-reparameterization-trick     `vaetut.reparam`
07-inverse-cdf                  `vaetut.reparam.inverse_cdf`
08-location-scale               `vaetut.reparam.location_scale`
09-composition                  `vaetut.reparam.composition`
10-implicit                     `vaetut.reparam.implicit`
11-variational-autoencoder      `vaetut.models`, `vaetut.aevb`, `vaetut.data`
12-paper-experiments            `vaetut.experiments`
13-tighter-bounds               `vaetut.bounds.importance`
14-field-guide-to-bugs          all
==============================  ==================================================

The distributions that torch lacks (chapters 7 to 9) are in `vaetut.distributions`; what the chapters use to
check and to draw, `verify`, `explore` and `plots`, is in `vaetut.teaching`, and the command line in `vaetut.cli`.
The book: <https://vaetut.github.io/vaetut/>, its source: <https://github.com/vaetut/vaetut>.
"""

from vaetut._support import interrupt  # first, since Ctrl-C may come while torch is imported

# isort: split
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vaetut import distributions, reparam
from vaetut._support.validate import checks
from vaetut.aevb import History, load_model, save_model, train
from vaetut.bounds import (
    ElboTerms,
    cubo_bound,
    doubly_reparameterized,
    elbo_terms,
    iwae_bound,
    log_evidence,
    log_weights,
    minibatch_bound,
    sgvb_a,
    sgvb_b,
    sticking_the_landing,
)
from vaetut.data import ImageData, binarize, load
from vaetut.distributions import Truncated
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
from vaetut.teaching.verify import VerificationError, verify

interrupt.restore()

if TYPE_CHECKING:  # for type checkers and editors; at run time they load when first used
    from vaetut.teaching import plots
    from vaetut.teaching.explore import Explorer, explore

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
    "Truncated",
    "VerificationError",
    "binarize",
    "catalogue",
    "checks",
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
    "load_model",
    "log_evidence",
    "log_weights",
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
    "save_model",
    "score_function",
    "sgvb_a",
    "sgvb_b",
    "sticking_the_landing",
    "train",
    "verify",
]

# Importing matplotlib takes several times as long as importing all the mathematics, so what needs it loads when
# first used.
_LAZY = {
    "Explorer": "vaetut.teaching.explore",
    "explore": "vaetut.teaching.explore",
    "plots": "vaetut.teaching.plots",
}

if not TYPE_CHECKING:  # a type checker must still report names that do not exist

    def __getattr__(name: str) -> Any:
        """Import what is in ``_LAZY`` when it is first asked for (PEP 562)."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_LAZY[name])
        found = module if name == "plots" else getattr(module, name)
        globals()[name] = found  # the next access does not call this function
        return found


def __dir__() -> list[str]:
    helpers = {"Any", "TYPE_CHECKING", "import_module", "interrupt"}  # only of this file
    return sorted({*globals(), *_LAZY} - helpers)
