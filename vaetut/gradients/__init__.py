r"""Estimators of gradients of expectations, and what can be said about them in numbers.

Chapter 4, *Gradients of expectations*, explains the estimators and how they are measured; chapter 13, *Tighter
bounds*, those that belong to a bound, in `vaetut.bounds.importance`.
"""

from vaetut.gradients.estimators import measure_valued, pathwise, score_function
from vaetut.gradients.statistics import GradientStatistics, gradient_statistics

__all__ = [
    "GradientStatistics",
    "gradient_statistics",
    "measure_valued",
    "pathwise",
    "score_function",
]
