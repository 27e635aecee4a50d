"""Auto-encoding variational Bayes: training (chapter 11, *The variational auto-encoder*)."""

from vaetut.aevb.history import History
from vaetut.aevb.model_file import load_model, save_model
from vaetut.aevb.train import Bound, train

__all__ = ["Bound", "History", "load_model", "save_model", "train"]
