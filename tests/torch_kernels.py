"""What torch itself lacks at the lower bound of pyproject.toml: there, and only there, a test that needs it is less."""

import pytest
import torch
from torch import distributions as td

from vaetut import distributions as vd

# Measured with torch 2.11 and 2.13. Below, compiled code may draw in another order than eager code: where a step makes
# the pixels black or white and draws z, z comes first. And a hook on z that changes its gradient cannot be compiled.
COMPILES_IN_ORDER = torch.__version__ >= "2.13"

DRAW_GAMMAS = {td.StudentT, td.FisherSnedecor, td.Beta, td.Dirichlet, vd.Erlang, vd.MultivariateStudentT}


def has_meta_gamma() -> bool:
    """Whether torch can draw gamma variables on ``meta``, and so on a fake GPU: torch 2.11 cannot."""
    try:
        torch._standard_gamma(torch.ones(1, device="meta"))
    except NotImplementedError:
        return False
    return True


def needs_meta_kernels(kind: type) -> None:
    """Skip the test if this family's draws have no kernel on ``meta``."""
    if kind in DRAW_GAMMAS and not has_meta_gamma():
        pytest.skip("this torch has no meta kernel for gamma variables")
