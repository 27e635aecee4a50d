"""Quadrature for implicit gradients: the derivative of a sample in the parameters of its density (chapter 10).

All computations are in one coordinate x on the real line, and in log space. With g the density of x and F its CDF,

    dx/dφ = −∂F/∂φ / g = F (1 − F) / g · (E[∂ log g(t)/∂φ | t > x] − E[∂ log g(t)/∂φ | t < x]).

The second form is the one computed here. Both conditional means are weighted averages, so that nothing overflows or
cancels in a tail; and a part of log g that is constant in t cancels in their difference, so that an inexact normalizing
constant has no effect (that of torch's von Mises is accurate to seven digits).

The integrals are Gauss–Legendre sums over panels that are halved until they resolve g. One mesh serves all samples of
a distribution; each sample only adds the two pieces of the panel that it lies in. A single sample is itself the end of
two panels.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]  # [points, *batch] -> [points, *batch], differentiable in φ
FLOOR = -1e200  # used for log 0 where −inf would give a NaN
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

NODES = 24  # of the Gauss–Legendre rule on a panel; with 6 panels most smooth densities are resolved at once
PANELS = 6  # initially
MAX_ROUNDS = 60  # of halving: enough to isolate a kink
MAX_PANELS = 256
DEPTH = 38.0  # how far log g falls from its value at the samples to the ends of the mesh; beyond, it is extrapolated
TOLERANCE = 1e-12  # for a panel's error relative to the sum; a smooth density stays far below it


def _legendre() -> tuple[Array, Array, Array]:
    """Nodes, weights, and the matrix from values at the nodes to the integral over the panel and to numbers that show
    whether a function is resolved: two Legendre coefficients in the middle, the last two, and the interpolant at both
    ends of the panel."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    degree = np.arange(NODES)[:, None]
    coefficients = (degree + 0.5) * weights * np.polynomial.legendre.legvander(nodes, NODES - 1).T
    ends = np.polynomial.legendre.legvander(np.array([-1.0, 1.0]), NODES - 1) @ coefficients
    return (
        nodes,
        weights,
        np.concatenate([weights[None] / 2, coefficients[NODES // 2 - 1 :][:2], coefficients[-2:], ends]),
    )


RULE = _legendre()


class Split(NamedTuple):
    """The masses of distributions below and above x, and the gradient of x; each ``[samples, *batch]``."""

    step: Tensor  # 0, with gradient dx/dφ
    log_below: Tensor  # log of the mass below x
    log_above: Tensor


class _Panels(NamedTuple):
    """The panels of a mesh, each ``[panels, *batch]``."""

    left: Tensor
    width: Tensor
    log_mass: Tensor
    log_error: Tensor  # estimate of the integral's relative error


_Part = tuple[Tensor, Tensor]  # of the distribution: its log mass, and the mean of log g over it


def split(log_density: LogDensity, x: Tensor, low: Tensor, high: Tensor, rounds: int | None = None) -> Split:
    """Split distributions at their samples and attach the implicit gradient to the samples.

    Args:
        log_density: log g, normalized up to rounding.
        x: detached float64 samples ``[samples, *batch]``.
        low: the end of the range in which ``log_density`` can be computed, ``[*batch]``; beyond this end, and beyond
            the mesh, log g is continued as a straight line.
        high: the same at the other end.
        rounds: how often to refine the mesh; None until it resolves g, which depends on the data.

    Returns:
        `Split`.
    """
    dim = x.dim() - 1
    nodes, weights, _ = RULE
    with torch.no_grad():
        left, width, at_x = _range(log_density, x, low, high)
    with torch.set_grad_enabled(torch.is_grad_enabled() and rounds is None):
        value = _values(log_density, left, width)
    with torch.no_grad():
        start = _panels(left, width, value)
        mesh = _refine(log_density, start, x, rounds)
        right = mesh.left + mesh.width
    if mesh is start and bool(value.detach().sum().isfinite()):
        value = value[:, :NODES]  # so that most smooth densities are evaluated once
    else:
        place = mesh.left.unsqueeze(1) + mesh.width.unsqueeze(1) * _column((nodes + 1) / 2, x, dim)
        value = _finite(log_density, place, x[:1], rounds is not None)
    log_mass = torch.where(mesh.log_mass > FLOOR, mesh.log_mass, math.inf)  # a mass of 0 has no weight
    offset = (log_mass - mesh.width.log()).unsqueeze(1)
    share = torch.exp(value.detach() - offset) * _column(weights / 2, x, dim)
    # A panel has no width where the sample is at the end of the mesh.
    spare = (right[-1] - mesh.left[0]) / PANELS
    first, last = (torch.where(width > 0, width, spare) for width in (mesh.width[0], mesh.width[-1]))
    tails = (
        _tail(log_density, mesh.left[0], first, x[0]),
        _tail(log_density, right[-1], -last, x[0]),
    )
    log_mass = torch.cat([tails[0][0].unsqueeze(0), mesh.log_mass, tails[1][0].unsqueeze(0)])
    means = torch.cat([tails[0][1].unsqueeze(0), (share * value).sum(1), tails[1][1].unsqueeze(0)])

    # The cells are: left tail, panels, right tail.
    if len(x) == 1:
        index = _is_before(mesh, x).sum(0, keepdim=True)  # of the panel that begins at x
        below = _first_cells(log_mass, means, index)
        above = _first_cells(log_mass.flip(0), means.flip(0), len(mesh.left) - index)
    else:  # x lies in panel `index`, which is cell `index` + 1
        index = (x >= mesh.left[1:].unsqueeze(1)).sum(0)
        below = _join(
            _first_cells(log_mass, means, index),
            _piece(log_density, mesh.left.gather(0, index), x, x, rounds),
        )
        above = _join(
            _first_cells(log_mass.flip(0), means.flip(0), len(mesh.left) - 1 - index),
            _piece(log_density, x, right.gather(0, index), x, rounds),
        )
    with torch.no_grad():
        speed = torch.exp(below[0] + above[0] - torch.logaddexp(below[0], above[0]) - at_x)
    step = speed * (above[1] - below[1])
    return Split(step - step.detach(), below[0], above[0])


def reach(
    log_density: LogDensity, center: Tensor, level: Tensor, low: Tensor, high: Tensor,
    exponents: tuple[float, float, int, int] = (-30.0, 3.5, 13, 7),
) -> Tensor:  # fmt: skip
    """Distances ``[2, *batch]`` to the left and the right of ``center`` beyond which log g stays below ``level``.

    Log g is evaluated on a geometric grid, 2 to the power of ``exponents`` (first, stride, count), then at some points
    between two of these; by default from 1e-9 to beyond the length of any chart.
    """
    sign = _column(np.array([-1.0, 1.0]), center, center.dim())

    def outermost(first: Tensor, stride: float, count: int) -> Tensor:
        steps = _column(np.arange(1.0, count + 1), center, center.dim() + 1)
        x = (center + sign * torch.exp2(first + stride * (steps - 1))).clamp(low, high)
        above = _evaluate(log_density, x, center.dim()) >= level
        # one step beyond the outermost point that is not below
        return first + stride * (above * steps).amax(0)

    first, stride, count, between = exponents
    coarse = outermost(torch.full_like(sign * center, first), stride, count) - stride
    stride = stride / (between + 1)
    return torch.exp2(outermost(coarse + stride, stride, between))


def _column(values: Array, like: Tensor, dim: int) -> Tensor:
    """The values along an axis that ``dim`` axes follow."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * dim)


def _evaluate(log_density: LogDensity, x: Tensor, batch_dim: int) -> Tensor:
    leading = x.dim() - batch_dim
    return log_density(x.flatten(0, leading - 1)).unflatten(0, x.shape[:leading])


def _finite(log_density: LogDensity, x: Tensor, safe: Tensor, always: bool) -> Tensor:
    """log g at ``x``, replaced by FLOOR with gradient 0 where it is not finite, since its gradient may be NaN."""
    value = _evaluate(log_density, x, safe.dim() - 1)
    finite = value.detach().isfinite()
    if always or not finite.all():
        value = torch.where(
            finite, _evaluate(log_density, torch.where(finite, x, safe), safe.dim() - 1), FLOOR
        )
    return value


def _values(log_density: LogDensity, left: Tensor, width: Tensor) -> Tensor:
    """log g at the nodes and at both ends of panels, ``[panels, NODES + 2, *batch]``."""
    dim = left.dim() - 1
    unit = _column((np.append(RULE[0], [-1.0, 1.0]) + 1) / 2, left, dim)
    return _evaluate(log_density, left.unsqueeze(1) + width.unsqueeze(1) * unit, dim)


def _panels(left: Tensor, width: Tensor, value: Tensor) -> _Panels:
    """Integrate g over panels and estimate the error of each, from its `_values`."""
    _, _, checks = RULE
    value = value.nan_to_num(-math.inf, -math.inf, -math.inf)  # an overflow counts as no density
    top = value.amax(1, keepdim=True)
    density = torch.exp(value - top.clamp(min=FLOOR))
    inner, ends = density[:, :NODES], density[:, NODES:]
    found = torch.tensordot(torch.as_tensor(checks).to(left), inner, ([1], [1]))
    log_mass = top[:, 0] + torch.log(found[0] * width)
    half = found[1:3].abs().amax(0)
    full = torch.cat([found[3:5], found[5:] - ends.movedim(1, 0)]).abs().amax(0)
    # The polynomial's error falls geometrically with its degree n, as r^n, and the rule's error as r^(2n): r^(3n/2)
    # is a safe estimate. At a kink both fall like a power of n, the ratio is near 1, and the errors are equal.
    # At a kink of log g its gradient jumps; that is counted in addition to the variation of g.
    variation = (density.amax(1) - density.amin(1)).clamp(min=1e-7)
    log_error = (full / variation).log() + (full / half.clamp(min=1e-300)).clamp(max=1.0).log()
    return _Panels(left, width, log_mass, log_error)


def _range(log_density: LogDensity, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first panels, which cover all samples and all of g that is not negligible for them; and log g(x)."""
    at_x = log_density(x)
    center = x.gather(0, at_x.argmax(0, keepdim=True))[0]
    distance = reach(log_density, center, at_x.amin(0) - DEPTH, low, high)
    first = torch.minimum((center - distance[0]).clamp(min=low), x.amin(0))
    last = torch.maximum((center + distance[1]).clamp(max=high), x.amax(0))
    cuts = (first, x[0], last) if len(x) == 1 else (first, last)
    return *_even_panels(cuts), at_x


def _refine(log_density: LogDensity, mesh: _Panels, x: Tensor, rounds: int | None) -> _Panels:
    """The panels from left to right, halved until they resolve g; the mesh itself if they do."""
    dim, lowest, highest, start = x.dim() - 1, x.amin(0), x.amax(0), mesh
    for _ in range(MAX_ROUNDS if rounds is None else rounds):
        error = mesh.log_error + (mesh.log_mass - _sides(mesh, x, lowest, highest)).clamp(max=0.0)
        count = 3 if rounds is not None else int((error > math.log(TOLERANCE)).sum(0).max())
        count = min(count, MAX_PANELS - len(mesh.left))
        if count == 0:
            break
        index = error.topk(count, 0).indices
        left, width = mesh.left.gather(0, index), mesh.width.gather(0, index) / 2
        both = torch.cat([left, left + width]), torch.cat([width, width])
        halves = _panels(*both, _values(log_density, *both))
        # If neither half is better than the whole, the error is the rounding of log g.
        before = (mesh.log_mass + mesh.log_error).gather(0, index)
        after = (halves.log_mass + halves.log_error).unflatten(0, (2, count)).amin(0)
        noise = (after > before - 0.3) & (mesh.log_error.gather(0, index) < math.log(1e-3))
        halves = halves._replace(
            log_error=torch.where(noise.repeat(2, *[1] * dim), -math.inf, halves.log_error)
        )
        mesh = _Panels(*(
            torch.cat([old.scatter(0, index, new[:count]), new[count:]])
            for old, new in zip(mesh, halves, strict=True)
        ))  # fmt: skip
    if mesh is start:
        return mesh
    order = mesh.left.argsort(0)
    return _Panels(*(part.gather(0, order) for part in mesh))


def _even_panels(cuts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Left ends and widths of `PANELS` panels, as many between any two of the cuts."""
    count = PANELS // (len(cuts) - 1)
    steps = _column(np.arange(float(count)), cuts[0], cuts[0].dim())
    pairs = [(start, (stop - start) / count) for start, stop in pairwise(cuts)]
    left = torch.cat([start + width * steps for start, width in pairs])
    return left, torch.cat([width.expand(count, *width.shape) for _, width in pairs])


def _is_before(mesh: _Panels, x: Tensor) -> Tensor:
    """Whether a panel lies to the left of x, which is an end of panels."""
    return mesh.left + mesh.width / 2 < x


def _sides(mesh: _Panels, x: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """The log of all the mass on a panel's side of the samples; of the smaller one between them."""

    def total(mask: Tensor) -> Tensor:
        return torch.where(mask, mesh.log_mass, -math.inf).logsumexp(0).clamp(min=FLOOR)

    if len(x) == 1:
        before = _is_before(mesh, x)
        return torch.where(before, total(before), total(~before))
    end = mesh.left + mesh.width
    below, above = total(mesh.left <= lowest), total(end >= highest)
    inner = torch.where(mesh.left >= highest, above, torch.minimum(below, above))
    return torch.where(end <= lowest, below, inner)


def _tail(log_density: LogDensity, end: Tensor, inward: Tensor, safe: Tensor) -> _Part:
    """The part beyond ``end``, where log g is continued as a straight line with its slope just inside."""
    with torch.no_grad():
        inward = inward.clamp(-4.0, 4.0)  # a step that balances rounding and truncation error of the slope
        pair = torch.stack([end, end + inward])
        at_end, at_inner = log_density(pair).unbind()
        slope = (at_inner - at_end) / inward.abs()
        alive = at_end.isfinite() & slope.isfinite() & (slope > 0)
        slope = torch.where(alive, slope, 1.0)
        log_mass = torch.where(alive, at_end - slope.log(), -math.inf)
        excess = torch.where(alive, 1 / (slope * inward.abs()), 0.0)  # E|t − end| in units of the distance
    at_end, at_inner = log_density(torch.where(alive, pair, safe)).unbind()
    return log_mass, at_end + excess * (at_end - at_inner)


def _first_cells(log_mass: Tensor, means: Tensor, last: Tensor) -> _Part:
    """The union of the cells 0, …, ``last`` for each sample; ``last`` is ``[samples, *batch]``."""
    cells = len(log_mass)
    cell = torch.arange(cells, device=last.device).reshape(-1, *[1] * (last.dim() - 1))
    if len(last) > cells:  # computing it for every cell is cheaper than for every sample
        total, mean = _first_cells(log_mass, means, cell.expand_as(log_mass))
        return total.gather(0, last), mean.gather(0, last)
    log_mass = torch.where(cell.unsqueeze(1) <= last, log_mass.unsqueeze(1), -math.inf)
    total = log_mass.logsumexp(0)
    return total, (torch.exp(log_mass - total.clamp(min=FLOOR)) * means.unsqueeze(1)).sum(0)


def _piece(log_density: LogDensity, start: Tensor, stop: Tensor, safe: Tensor, rounds: int | None) -> _Part:
    """The part between ``start`` and ``stop``, each ``[samples, *batch]``."""
    nodes, weights, _ = RULE
    dim = start.dim()
    width = (stop - start).clamp(min=0.0)
    value = _finite(
        log_density, start + width * _column((nodes + 1) / 2, start, dim), safe, rounds is not None
    )
    with torch.no_grad():
        log_share = value + _column(np.log(weights / 2), start, dim) + width.log()
        log_mass = log_share.logsumexp(0)
        share = torch.exp(log_share - log_mass.clamp(min=FLOOR))
    return log_mass, (share * value).sum(0)


def _join(one: _Part, other: _Part) -> _Part:
    """The union of two disjoint parts."""
    log_mass = torch.logaddexp(one[0], other[0])
    safe = log_mass.clamp(min=FLOOR)
    return log_mass, torch.exp(one[0] - safe) * one[1] + torch.exp(other[0] - safe) * other[1]
