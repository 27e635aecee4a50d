r"""The registry of the maps from noise to a draw of q, in the manner of torch's ``register_kl``.

Chapter 6, *The reparameterization trick* (AEVB, section 2.4). A map is a noise
$\epsilon \sim p(\epsilon)$ that does not depend on the parameters and a deterministic $g_\phi$ such that
$z = g_\phi(\epsilon)$ has the distribution $q_\phi$. The maps themselves are in one file per family beside this one.
"""

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution

from vaetut._support.validate import distribution as check_distribution
from vaetut._support.validate import one_of
from vaetut.distributions.support import is_discrete
from vaetut.reparam._map import Map, Reparameterization

FAMILIES = ("inverse_cdf", "location_scale", "composition", "implicit")  # as in AEVB, section 2.4

# The order in which they are tried by default. An inverse CDF costs one uniform number and an elementary function; a
# standard variable costs its own sampler; of the other two, the implicit map has the gradient with less variance, and
# composition needs several noises for one draw.
_BEST_FIRST = ("inverse_cdf", "location_scale", "implicit", "composition")


class Row(NamedTuple):
    """One row of `catalogue`.

    ``noise`` and ``g`` are plain text with the names of torch's parameters; ``tex`` is g in TeX (inline math without
    the dollar signs) with one-letter symbols. ``paper`` is the list of AEVB, section 2.4, that names this pair (empty
    for a pair that the paper does not list), ``remark`` adds what the other columns do not say.

    Example:
        >>> next(row for row in catalogue() if row.distribution.__name__ == "Cauchy").g
        'loc + scale · tan(π(u − ½))'
    """

    distribution: type[Distribution]
    family: str
    noise: str
    g: str
    differentiable: tuple[str, ...]
    paper: str
    tex: str
    remark: str


class _Rule(NamedTuple):
    row: Row
    function: Callable[[Any], Map]
    differentiable: tuple[str, ...] | None  # None: all parameters, also those of a subclass
    preferred: bool
    applies: Callable[[Any], bool] | None
    place: int  # in _table


class _Choice(NamedTuple):
    """A rule for one class, as numbers and strings, which a compiled graph can hold as constants.

    ``given`` are the parameters that z has a gradient in, ``missing`` the others.
    """

    family: str
    place: int
    given: tuple[str, ...]
    missing: tuple[str, ...]
    conditional: bool


_table: list[_Rule] = []  # all that have been registered
_rules: dict[tuple[type[Distribution], str], _Rule] = {}  # those in use
# A class that defines one of these does not use the maps of its base.
_DENSITY = ("log_prob", "sample", "rsample", "icdf")


def register_reparameterization(
    distribution: type[Distribution],
    family: str,
    *,
    noise: str = "",
    g: str = "",
    tex: str = "",
    differentiable: tuple[str, ...] | None = None,
    paper: str = "",
    remark: str = "",
    preferred: bool = False,
    applies: Callable[[Any], bool] | None = None,
) -> Callable[[Callable[[Any], Map]], Callable[[Any], Map]]:
    """Decorate a function that returns the `Map` of one distribution in one family (chapter 6).

    The function is looked up as torch's ``kl_divergence`` does: the most derived class is used. A later registration
    for a pair replaces an earlier one. A subclass that defines its own ``log_prob``, ``sample``, ``rsample`` or
    ``icdf`` is another distribution, and does not use the map of its base: it has the implicit map of any univariate
    density, or a map that is registered for it.

    Args:
        distribution: the class; the function is used for its subclasses too if they keep its density and its sampler.
        family: "inverse_cdf", "location_scale", "composition" or "implicit".
        noise, g, tex, paper, remark: what `catalogue` shows.
        differentiable: the constructor's parameters that z has a gradient in; all of them by default.
        preferred: whether this family is tried before the others by default.
        applies: whether the map exists for a given q, if that depends on its parameters.

    Raises:
        TypeError: if ``distribution`` is not a class of distributions.
        ValueError: if the family is unknown, or ``differentiable`` has a name that is not a parameter.

    Example:
        A user's own distribution, a uniform variable to the power of 1/k:

        >>> from torch.distributions import constraints
        >>> class Power(Distribution):
        ...     arg_constraints = {"k": constraints.positive}
        ...     def __init__(self, k):
        ...         self.k = k
        ...         super().__init__(k.shape)
        >>> @register_reparameterization(Power, "inverse_cdf", noise="u ~ U(0, 1)", g="u^(1/k)", tex="u^{1/k}")
        ... def power(q):
        ...     return Map(StandardUniform(q.k, q.batch_shape), lambda u: u ** (1 / q.k))
        >>> from vaetut.reparam.noise import StandardUniform
        >>> reparameterize(Power(torch.tensor(2.0))).g(torch.tensor(0.25))
        tensor(0.5000)
    """
    if not (isinstance(distribution, type) and issubclass(distribution, Distribution)):
        raise TypeError(
            f"distribution must be a class of torch.distributions.Distribution, got {distribution!r}"
        )
    one_of(family, "family", FAMILIES)
    names = parameters(distribution) if differentiable is None else differentiable
    unknown = set(names) - set(parameters(distribution))
    if unknown:
        raise ValueError(
            f"differentiable must name parameters of {distribution.__name__}, {parameters(distribution)}, "
            f"got {sorted(unknown)}"
        )

    def register(function: Callable[[Any], Map]) -> Callable[[Any], Map]:
        row = Row(distribution, family, noise, g, names, paper, tex, remark)
        rule = _Rule(row, function, differentiable, preferred, applies, len(_table))
        _table.append(rule)
        _rules[distribution, family] = rule
        _choices.cache_clear()
        return function

    return register


def reparameterize(q: Distribution, via: str | None = None) -> Reparameterization:
    r"""Write a draw of q as a deterministic function of noise, $z = g_\phi(\epsilon)$ (``eq-reparameterization``).

    Then $\mathbb E_{q_\phi}[f(z)] = \mathbb E_{p(\epsilon)}[f(g_\phi(\epsilon))]$, and the gradient in $\phi$ moves
    inside the expectation (AEVB, section 2.4). An ``Independent`` is treated as its base, and a
    ``TransformedDistribution`` as its base followed by the transforms.

    The result reads the parameters at each draw. It can be pickled and copied, and works under ``torch.compile`` and
    ``torch.func``; the explicit maps have forward-mode derivatives. A subclass with its own density or sampler does not
    use the maps of its base (see `register_reparameterization`).

    For the beta and the Dirichlet distribution the default is the composition, which is right for every concentration.
    torch's own ``rsample`` is not: for Beta(1e-3, 1e-3) it puts a quarter of the draws between 0.4 and 0.6 instead
    of 0.04 %, and if one concentration is 1e5 times the other, the gradients are wrong or infinite. On one core,
    2,000 draws and their gradient take about 5 ms for either, in float32 and in float64 alike; torch's take about 1 ms.
    via="implicit" draws in logs too, and its gradient has less variance (``eq-comp-never-lower``): for dz/dφ of a beta
    variable often about half. But it loses digits at concentrations beyond 1e8 (see `implicit_rsample`).

    Args:
        q: a distribution; `catalogue` lists those that have a map.
        via: the family of the map, "inverse_cdf", "location_scale", "composition" or "implicit". None selects the
            first with a gradient in every parameter, in the order of `families`.

    Returns:
        A `Reparameterization`.

    Raises:
        TypeError: if q is not a distribution.
        ValueError: if the family is unknown, if the map does not exist for these values of the parameters, or if
            a parameter requires a gradient that the map does not have.
        NotImplementedError: if q has no map in this family, or none at all.

    Example:
        >>> from torch.distributions import Cauchy
        >>> r = reparameterize(Cauchy(torch.tensor(1.0), torch.tensor(2.0)))
        >>> r
        Reparameterization(Cauchy, family='inverse_cdf', noise=StandardUniform, differentiable=('loc', 'scale'))
        >>> r.g(torch.tensor([0.25, 0.5, 0.75]))
        tensor([-1.0000,  1.0000,  3.0000])
    """
    if not isinstance(q, Distribution) or (via is not None and via not in FAMILIES):
        check_distribution(q, "q")
        one_of(via, "via", FAMILIES)
    if isinstance(q, Independent):
        return _unwrap(q, via)
    choices = _choices_of(type(q))
    if via is None and choices and not choices[0].conditional:  # of most classes
        choice: _Choice | None = choices[0]
    else:
        choice = next((c for c in choices if (via is None or c.family == via) and _applies(c, q)), None)
    if choice is None:
        for other in choices:
            if other.family == via:
                _table[other.place].function(q)  # its error says why the map does not exist for q
        raise _no_map(q, via)
    if choice.missing:
        if via is None:  # the first that has a gradient in every parameter, if there is one
            choice = next((c for c in choices if not c.missing and _applies(c, q)), choice)
        _check_gradients(q, choice)
    return Reparameterization(q, choice.family, choice.given, _table[choice.place].function(q))


def families(q: Distribution | type[Distribution]) -> tuple[str, ...]:
    """List the families that q belongs to, in the order in which `reparameterize` tries them (chapters 6 to 10).

    A closed-form inverse CDF comes first, then a location-scale map, the implicit map, a composition. The exceptions:
    for the Gaussian and functions of it, whose inverse CDF is not elementary, and for Student's t and F a faster map
    comes first; for the beta and the Dirichlet distribution the composition, which is right for every concentration.
    Maps registered for a class come before those of its base classes.

    For a class the answer lists all families that its distributions may have; some distributions have fewer, such as a
    gamma with a concentration that is not an integer, which is not a sum of exponential variables.

    Args:
        q: a distribution, or a class of distributions.

    Returns:
        Their names, none if q has no map.

    Raises:
        TypeError: if q is neither a distribution nor a class of distributions.

    Example:
        >>> from torch.distributions import LogNormal
        >>> families(LogNormal)
        ('composition', 'inverse_cdf', 'implicit')
    """
    if isinstance(q, type):
        if not issubclass(q, Distribution):
            raise TypeError(f"q must be a distribution or a class of distributions, got {q!r}")
    else:
        if not isinstance(q, Distribution):
            raise TypeError(
                f"q must be a distribution or a class of distributions, got {q!r} of type {type(q).__name__}"
            )
        while isinstance(q, Independent):
            q = q.base_dist
    kind = q if isinstance(q, type) else type(q)
    return tuple(choice.family for choice in _choices_of(kind) if _applies(choice, q))


def catalogue() -> list[Row]:
    """List every registered map, one `Row` for each distribution and family, family by family.

    AEVB, section 2.4, names 23 pairs; the rows with a ``paper`` are those.

    Example:
        >>> for row in catalogue():
        ...     if row.distribution.__name__ == "Gumbel":
        ...         print(row.family, "|", row.noise, "|", row.g, "|", row.differentiable)
        inverse_cdf | u ~ U(0, 1) | loc − scale · log(−log u) | ('loc', 'scale')
        location_scale | ε ~ Gumbel(0, 1) | loc + scale · ε | ('loc', 'scale')
    """
    return sorted((rule.row for rule in _rules.values()), key=lambda row: FAMILIES.index(row.family))


def _choices_of(kind: type[Distribution]) -> tuple[_Choice, ...]:
    return _choices(kind)  # type: ignore[arg-type] # of a hash that takes self


# Evaluated while code is traced, and not a part of the graph. This is all that torch.compiler.assume_constant_result
# does, which takes seconds to import the compiler first.
_choices_of._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _choices(kind: type[Distribution]) -> tuple[_Choice, ...]:
    """The rules for a class, the most derived of each family, best first."""
    best: dict[str, _Rule] = {}
    for base, family in itertools.product(kind.__mro__, _BEST_FIRST):
        rule = _rules.get((base, family))
        if rule is not None and _is_kept(kind, base):
            best.setdefault(family, rule)
    names, choices = parameters(kind), []
    for rule in sorted(
        best.values(), key=lambda rule: (kind.__mro__.index(rule.row.distribution), not rule.preferred)
    ):
        given = names if rule.differentiable is None else rule.differentiable
        missing = tuple(name for name in names if name not in given)
        choices.append(_Choice(rule.row.family, rule.place, given, missing, rule.applies is not None))
    return tuple(choices)


def _is_kept(kind: type[Distribution], base: type[Distribution]) -> bool:
    """Whether a class keeps the density and the sampler of its base, and therefore its maps."""
    owners = {name: _owner(kind, name) for name in _DENSITY}
    if base is Distribution:
        # The implicit map takes draws and density from q itself. They fit together unless a class combines
        # another sampler with the density of its base.
        sampler = min(owners["sample"], owners["rsample"])
        return owners["log_prob"] <= sampler or not _is_foreign(kind, sampler)
    above = kind.__mro__.index(base)
    # A TransformedDistribution is determined by its base and its transforms, however it computes its density.
    density = () if base is TransformedDistribution else ("log_prob", "icdf")
    return not any(
        owners[name] < above and _is_foreign(kind, owners[name]) for name in ("sample", "rsample", *density)
    )


def _owner(kind: type[Distribution], name: str) -> int:
    """The index, in the method resolution order of a class, of the class that defines an attribute."""
    return next(place for place, base in enumerate(kind.__mro__) if name in vars(base))


def _is_foreign(kind: type[Distribution], place: int) -> bool:
    """Whether a base is neither torch's nor vaetut's (these redefine methods of their bases only for speed)."""
    return not kind.__mro__[place].__module__.startswith(("torch.distributions", "vaetut."))


def _applies(choice: _Choice, q: Any) -> bool:
    applies = _table[choice.place].applies if choice.conditional else None
    return applies is None or applies(q)


def _no_map(q: Distribution, via: str | None) -> NotImplementedError:
    kind = type(q)
    names = ", ".join(repr(family) for family in families(q))
    if names:
        return NotImplementedError(f"{kind.__name__} has no map via={via!r}; it has via = {names}")
    if is_discrete(q):
        return NotImplementedError(
            f"no reparameterization of {kind.__name__} exists: its draws change only in jumps and have no gradient; "
            "use vaetut.score_function"
        )
    inherited = [base.__name__ for base in kind.__mro__[1:] if base is not Distribution and _is_listed(base)]
    if inherited:
        return NotImplementedError(
            f"no reparameterization of {kind.__name__} is known: it defines one of {', '.join(_DENSITY)}, so it does "
            f"not use the maps of its base {inherited[0]}; register_reparameterization adds a map, or define both "
            "log_prob and sample for the implicit one (one dimension only)"
        )
    return NotImplementedError(
        f"no reparameterization of {kind.__name__} is known; register_reparameterization adds one"
    )


def _is_listed(kind: type) -> bool:
    return any((kind, family) in _rules for family in FAMILIES)


def _check_gradients(q: Distribution, choice: _Choice) -> None:
    """Raise if a parameter requires a gradient that the map does not have."""
    if not torch.is_grad_enabled():
        return
    kind = type(q)
    for name in choice.missing:
        value = getattr(q, name)
        if isinstance(value, Tensor) and value.requires_grad:
            able = [repr(c.family) for c in _choices_of(kind) if name in c.given and _applies(c, q)]
            hint = f"use via={' or via='.join(able)}, or" if able else "no other map has it:"
            given = ", ".join(choice.given) + " only" if choice.given else "no parameter"
            raise ValueError(
                f"{name} of {kind.__name__} requires a gradient, but the map via={choice.family!r} has a gradient "
                f"in {given}: {hint} detach {name}"
            )


def _unwrap(q: "Independent[Any]", via: str | None) -> Reparameterization:
    base = reparameterize(q.base_dist, via)
    noise, g, _ = base._map
    if noise is not None:
        noise = Independent(noise, q.reinterpreted_batch_ndims, validate_args=False)
    return Reparameterization(q, base.family, base.differentiable, Map(noise, g, base.rsample))


def parameters(kind: type[Distribution]) -> tuple[str, ...]:
    """The constructor's parameters that can have a gradient: all but the integer ones."""
    if kind is Distribution:  # its constructor takes shapes
        return ()
    declared: Any = kind.arg_constraints
    constraints = declared if isinstance(declared, dict) else {}  # a property, for a class such as Uniform
    whole = {name for name, constraint in constraints.items() if getattr(constraint, "is_discrete", False)}
    named = inspect.signature(kind.__init__).parameters.values()
    return tuple(
        p.name
        for p in list(named)[1:]
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "validate_args" and p.name not in whole
    )
