"""The reparameterization trick for every distribution of AEVB, section 2.4 (chapters 6 to 10).

`reparameterize` returns the noise and the map of a distribution, `catalogue` lists the maps. Each family has a file:
`inverse_cdf`, `location_scale`, `composition` and `implicit`.
"""

from vaetut.reparam import composition, implicit, inverse_cdf, location_scale
from vaetut.reparam._map import Map, Reparameterization
from vaetut.reparam.implicit import _quantile as _quantile  # registers the implicit family
from vaetut.reparam.implicit import implicit_gradient, implicit_rsample
from vaetut.reparam.noise import (
    JointNoise,
    StandardCauchy,
    StandardExponential,
    StandardLaplace,
    StandardNormal,
    StandardUniform,
)
from vaetut.reparam.registry import (
    FAMILIES,
    Row,
    catalogue,
    families,
    register_reparameterization,
    reparameterize,
)

__all__ = [
    "FAMILIES",
    "JointNoise",
    "Map",
    "Reparameterization",
    "Row",
    "StandardCauchy",
    "StandardExponential",
    "StandardLaplace",
    "StandardNormal",
    "StandardUniform",
    "catalogue",
    "composition",
    "families",
    "implicit",
    "implicit_gradient",
    "implicit_rsample",
    "inverse_cdf",
    "location_scale",
    "register_reparameterization",
    "reparameterize",
]
