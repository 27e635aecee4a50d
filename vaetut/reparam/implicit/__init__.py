"""Implicit gradients (chapter 10, *Implicit*)."""

from vaetut.reparam.implicit.gradient import implicit_gradient, implicit_rsample

__all__ = ["implicit_gradient", "implicit_rsample"]
