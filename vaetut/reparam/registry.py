r"""Which map turns which noise into a draw of q: a registry in the manner of torch's ``register_kl``.

Chapter 6, *The reparameterization trick* (AEVB, section 2.4). A map is a noise $\epsilon \sim p(\epsilon)$ that no
parameter touches and a deterministic $g_\phi$ such that $z = g_\phi(\epsilon)$ has the distribution
$q_\phi$. The maps themselves stand in one file per family beside this one.
"""

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaetut._support.validate import one_of
from vaetut.reparam._map import Map, Reparameterization

FAMILIES = ("inverse_cdf", "location_scale", "composition", "implicit")  # as in AEVB, section 2.4

# The order in which they are tried when none is asked for. An inverse CDF costs one uniform number and an elementary
# function; a standard variable costs its own sampler; of what is left, the implicit map has the gradient with the
# least variance, and composition takes several noises for one draw.
_BEST_FIRST = ("inverse_cdf", "location_scale", "implicit", "composition")


class Row(NamedTuple):
    """One row of `catalogue`.

    ``noise`` and ``g`` are plain text and ``tex`` is g in TeX (inline maths without the dollar signs), with the
    names of torch's parameters in the first and one-letter symbols in the second. ``paper`` is the list of AEVB,
    section 2.4, that names this pair (empty for a pair that the paper does not list), ``remark`` says what is not
    plain from the rest.
    """

    distribution: type[Distribution]
    family: str
    noise: str
    g: str
    differentiable: tuple[str, ...]
    paper: str
    tex: str
    remark: str


@dataclass(frozen=True)
class _Rule:
    row: Row
    function: Callable[[Any], Map]
    differentiable: tuple[str, ...] | None  # None: all parameters, of a subclass too
    preferred: bool
    applies: Callable[[Any], bool] | None

    def names(self, kind: type[Distribution]) -> tuple[str, ...]:
        """The parameters of a class that the map has a gradient in."""
        return parameters(kind) if self.differentiable is None else self.differentiable


_rules: dict[tuple[type[Distribution], str], _Rule] = {}
_found: dict[type[Distribution], tuple[_Rule, ...]] = {}  # what _rules_of found for a class, best first
_parameters: dict[type[Distribution], tuple[str, ...]] = {}
_picked: dict[tuple[type[Distribution], str | None], _Rule] = {}  # what _pick picks for every q of a class


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
    """Decorate a function that gives the `Map` of one distribution in one family.

    The function is looked up as torch's ``kl_divergence`` looks up its own: the most derived class wins. What is
    registered last for a pair replaces what was there.

    Args:
        distribution: the class; the function serves its subclasses too.
        family: "inverse_cdf", "location_scale", "composition" or "implicit".
        noise, g, tex, paper, remark: what `catalogue` shows.
        differentiable: the constructor's parameters that z has a gradient in; all of them by default.
        preferred: whether this family is tried before the others when none is asked for.
        applies: whether the map exists for a given q, where its class alone does not tell.

    Raises:
        TypeError: if ``distribution`` is not a class of distributions.
        ValueError: if there is no such family, or ``differentiable`` names what is no parameter.

    Example:
        A user's own distribution, uniform on the unit interval to the power of 1/k:

        >>> from torch.distributions import constraints
        >>> class Power(Distribution):
        ...     arg_constraints = {"k": constraints.positive}
        ...     def __init__(self, k):
        ...         self.k = k
        ...         super().__init__(k.shape)
        >>> @register_reparameterization(Power, "inverse_cdf")
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
        _rules[distribution, family] = _Rule(row, function, differentiable, preferred, applies)
        _found.clear()
        _picked.clear()
        return function

    return register


def reparameterize(q: Distribution, via: str | None = None) -> Reparameterization:
    r"""Write a draw of q as a deterministic function of noise, $z = g_\phi(\epsilon)$ (``eq-reparameterization``).

    Then $\mathbb E_{q_\phi}[f(z)] = \mathbb E_{p(\epsilon)}[f(g_\phi(\epsilon))]$, and the gradient in $\phi$ moves
    inside the expectation (AEVB, section 2.4). An ``Independent`` is treated as its base, and a
    ``TransformedDistribution`` as its base followed by the transforms.

    Args:
        q: a distribution; `catalogue` lists those that have a map.
        via: the family of the map, "inverse_cdf", "location_scale", "composition" or "implicit". None picks the
            first that has a gradient in every parameter, in the order of `families`.

    Returns:
        A `Reparameterization`.

    Raises:
        TypeError: if q is not a distribution.
        ValueError: if there is no such family, if the map does not exist for these values of the parameters, or if
            a parameter requires a gradient that the map cannot give.
        NotImplementedError: if q has no map in this family, or none at all.

    Example:
        >>> from torch.distributions import Cauchy
        >>> r = reparameterize(Cauchy(torch.tensor(1.0), torch.tensor(2.0)))
        >>> r
        Reparameterization(Cauchy, family='inverse_cdf', noise=StandardUniform, differentiable=('loc', 'scale'))
        >>> r.g(torch.tensor([0.25, 0.5, 0.75]))
        tensor([-1.0000,  1.0000,  3.0000])
    """
    rule = _picked.get((type(q), via))
    if rule is None:
        _check_distribution(q)
        if via is not None:
            one_of(via, "via", FAMILIES)
        if isinstance(q, Independent):
            return _unwrap(q, via)
        rule = _pick(q, via)
    if rule.differentiable is not None:
        _check_gradients(q, rule)
    made = rule.function(q)
    return Reparameterization(q, rule.row.family, rule.names(type(q)), made)


def families(q: Distribution | type[Distribution]) -> tuple[str, ...]:
    """List the families that q belongs to, the best first: the order in which `reparameterize` tries them.

    A closed-form inverse CDF comes first, then a location-scale map, the implicit map, a composition. For some
    another map is cheaper and comes first: for the Gaussian and what is made of it, whose inverse CDF is no elementary
    function, and for Student's t and F. What is registered for a base class follows what is registered for
    the class itself.

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
        rules = tuple(rule for rule in _rules_of(q) if rule.applies is None or rule.applies(q))
    else:
        _check_distribution(q)
        base: Any = q
        while isinstance(base, Independent):
            base = base.base_dist
        rules = _rules_for(base)
    return tuple(rule.row.family for rule in rules)


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


def _rules_of(kind: type[Distribution]) -> tuple[_Rule, ...]:
    """The most derived rule of each family for a class, best first."""
    if kind not in _found:
        best: dict[str, _Rule] = {}
        for base, family in itertools.product(kind.__mro__, _BEST_FIRST):
            if (base, family) in _rules:
                best.setdefault(family, _rules[base, family])
        _found[kind] = tuple(
            sorted(
                best.values(),
                key=lambda rule: (kind.__mro__.index(rule.row.distribution), not rule.preferred),
            )
        )
    return _found[kind]


def _rules_for(q: Distribution) -> tuple[_Rule, ...]:
    return tuple(rule for rule in _rules_of(type(q)) if rule.applies is None or rule.applies(q))


def _pick(q: Distribution, via: str | None) -> _Rule:
    kind, rules = type(q), _rules_for(q)
    if not rules:
        raise NotImplementedError(
            f"no reparameterization of {kind.__name__} is known; register_reparameterization adds one"
        )
    if via is None:
        wanted = set(parameters(kind))
        rule = next((rule for rule in rules if wanted.issubset(rule.names(kind))), rules[0])
    else:
        able = [rule for rule in rules if rule.row.family == via]
        if not able:
            names = ", ".join(repr(rule.row.family) for rule in rules)
            raise NotImplementedError(f"{kind.__name__} has no map via={via!r}; it has via = {names}")
        rule = able[0]
    if all(other.applies is None for other in rules[: rules.index(rule) + 1]):
        _picked[kind, via] = rule
    return rule


def _check_gradients(q: Distribution, rule: _Rule) -> None:
    """Raise if a parameter requires a gradient that the map does not have."""
    kind, given = type(q), rule.names(type(q))
    for name in parameters(kind):
        value = None if name in given else getattr(q, name)
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
            able = [repr(other.row.family) for other in _rules_for(q) if name in other.names(kind)]
            hint = f"use via={' or via='.join(able)}, or" if able else "no other map of it does:"
            raise ValueError(
                f"{name} of {kind.__name__} requires a gradient, but the map via={rule.row.family!r} has a gradient "
                f"in {', '.join(given) + ' only' if given else 'no parameter'}: {hint} detach {name}"
            )


def _unwrap(q: "Independent[Any]", via: str | None) -> Reparameterization:
    base = reparameterize(q.base_dist, via)
    noise, g, _ = base._map
    if noise is not None:
        noise = Independent(noise, q.reinterpreted_batch_ndims, validate_args=False)
    return Reparameterization(q, base.family, base.differentiable, Map(noise, g, base.rsample))


def parameters(kind: type[Distribution]) -> tuple[str, ...]:
    """The constructor's parameters that can have a gradient: all but those that are whole numbers."""
    if kind not in _parameters:
        _parameters[kind] = _read_parameters(kind)
    return _parameters[kind]


def _read_parameters(kind: type[Distribution]) -> tuple[str, ...]:
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


def _check_distribution(q: Any) -> None:
    if not isinstance(q, Distribution):
        raise TypeError(f"q must be a torch.distributions.Distribution, got {type(q).__name__}")
