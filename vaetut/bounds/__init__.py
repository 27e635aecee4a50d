"""Bounds on the evidence, and the evidence itself by importance sampling (chapters 2, 5 and 13)."""

from vaetut.bounds.elbo import ElboTerms, elbo_terms, minibatch_bound, sgvb_a, sgvb_b
from vaetut.bounds.importance import (
    cubo_bound,
    doubly_reparameterized,
    iwae_bound,
    log_evidence,
    log_weights,
    sticking_the_landing,
)

__all__ = [
    "ElboTerms",
    "cubo_bound",
    "doubly_reparameterized",
    "elbo_terms",
    "iwae_bound",
    "log_evidence",
    "log_weights",
    "minibatch_bound",
    "sgvb_a",
    "sgvb_b",
    "sticking_the_landing",
]
