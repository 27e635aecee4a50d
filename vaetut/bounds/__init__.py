"""Bounds on the evidence, and the evidence itself by importance sampling (chapters 2, 5 and 13)."""

from vaetut.bounds.elbo import (
    ElboTerms,
    cubo_bound,
    elbo_terms,
    iwae_bound,
    log_evidence,
    minibatch_bound,
    sgvb_a,
    sgvb_b,
)
from vaetut.bounds.importance import doubly_reparameterized, sticking_the_landing

__all__ = [
    "ElboTerms",
    "cubo_bound",
    "doubly_reparameterized",
    "elbo_terms",
    "iwae_bound",
    "log_evidence",
    "minibatch_bound",
    "sgvb_a",
    "sgvb_b",
    "sticking_the_landing",
]
