"""AEVB's experiments (its section 5), repeated: chapter 12, *The paper's experiments*.

``python -m vaetut.experiments --help`` runs them from the command line. As functions:

* `figure2.run`, `figure3.run` and `figure4.run`: one figure of the paper each, at any size, over the
  `vaetut.experiments.runner.Settings`;
* `wake_sleep` and `MonteCarloEM`: the algorithms that AEVB was compared with;
* `hmc`, `leapfrog`, `marginal_likelihood`: used by these algorithms and their evaluation;
* `full_vb.run`: appendix F, a posterior over the decoder's weights as well;
* `stored`: the results on MNIST, which come with the package.
"""

from vaetut.experiments.figure2 import kl_per_dimension
from vaetut.experiments.figure4 import decode_picture, manifold
from vaetut.experiments.hmc import HMCSamples, HMCStep, adapt, hmc, hmc_step, leapfrog
from vaetut.experiments.marginal import marginal_likelihood
from vaetut.experiments.mcem import MonteCarloEM, complete_log_likelihood
from vaetut.experiments.runner import Settings
from vaetut.experiments.runs import read_json, stored
from vaetut.experiments.trainer import Loop, Trainer, mean_bound, new_model
from vaetut.experiments.wake_sleep import WakeSleep, wake_sleep

__all__ = [
    "HMCSamples",
    "HMCStep",
    "Loop",
    "MonteCarloEM",
    "Settings",
    "Trainer",
    "WakeSleep",
    "adapt",
    "complete_log_likelihood",
    "decode_picture",
    "hmc",
    "hmc_step",
    "kl_per_dimension",
    "leapfrog",
    "manifold",
    "marginal_likelihood",
    "mean_bound",
    "new_model",
    "read_json",
    "stored",
    "wake_sleep",
]
