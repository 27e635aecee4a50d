"""Auto-encoding variational Bayes: training (chapter 11, *The variational auto-encoder*)."""

from vaetut.aevb.train import Bound, History, train

__all__ = ["Bound", "History", "train"]
