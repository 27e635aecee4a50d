r"""Estimators of gradients of expectations, and statistics of these estimators.

Chapter 4, *Gradients of expectations*, explains the estimators and how they are measured; those that belong to a bound
are in `vaetut.bounds.importance` (chapter 13).

Three unbiased estimators of $\nabla_\phi\, \mathbb E_{q_\phi(z)}[f(z)]$ (``eq-gradient-phi``) are available,
which differ in everything else. Each function returns **surrogates**, one for each draw: tensors
``[num_samples, *q.batch_shape]`` whose *value* is $f(z)$ and whose *gradient*, as automatic differentiation takes it,
is the estimator. A plain ``f(z).mean(0)`` has the right value and, in general, the wrong gradient: the draws depend on
$\phi$ through the distribution, and that is not in the graph. Adding a term whose value is zero and whose gradient is
the missing one (``eq-grad-surrogate``) corrects the gradient and keeps the value, so that one tensor can be reported,
averaged, added to other terms of a loss and differentiated, in reverse mode or in forward mode (``torch.func.jvp``).

Parameters of f itself, or a direct dependence of f on $\phi$ as in $\log p(x, z) - \log q_\phi(z)$, get their
gradient from the surrogate as well.
"""

from vaetut.gradients.measure_valued import measure_valued
from vaetut.gradients.pathwise import pathwise
from vaetut.gradients.score_function import score_function
from vaetut.gradients.statistics import GradientStatistics, gradient_statistics

__all__ = [
    "GradientStatistics",
    "gradient_statistics",
    "measure_valued",
    "pathwise",
    "score_function",
]
