"""tools/mutants.py finds the changes that a check does not notice, and changes nothing that is only a setting."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import mutants as tool


def made(source):
    return {mutant.source for mutant in tool.mutants("eq-a", source)}


@pytest.mark.parametrize(
    "source, expected",
    [
        ("verify('eq-a', a + b, c)", {"verify('eq-a', a - b, c)"}),
        ("verify('eq-a', a / b, c)", {"verify('eq-a', a * b, c)"}),
        ("verify('eq-a', -a, c)", {"verify('eq-a', a, c)"}),
        ("verify('eq-a', kl(q, p), c)", {"verify('eq-a', kl(p, q), c)"}),
        ("verify('eq-a', a.log(), c)", {"verify('eq-a', a, c)"}),
        ("verify('eq-a', torch.log(a), c)", {"verify('eq-a', a, c)"}),
        ("verify('eq-a', a.mean(), c)", {"verify('eq-a', a.sum(), c)"}),
        ("verify('eq-a', 0.5, c)", {"verify('eq-a', 1.5, c)"}),
        ("a ** 2", {"a * 2", "a ** 3"}),
        ("verify('eq-a', a[0], c, tolerance=1e-9, standard_error=s / 2)", set()),
        ("x = a.sum(-1, keepdim=True)", {"x = a.mean(-1, keepdim=True)", "x = a.sum(-2, keepdim=True)"}),
        ("torch.manual_seed(3)\nprint(f'{a + b}', a + b)\nflag = True", set()),
    ],
)
def test_the_mutants_of_a_cell(source, expected):
    assert made(source) == expected


def test_survivors_are_listed(tmp_path, capsys):
    cells = [
        "from vaetut import verify\na, b = 3.0, 0.0",
        "verify('eq-good', a * a, a**2)",
        "verify('eq-blind', a + b, a)",
    ]
    path = tmp_path / "sample.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    tool.report(path)
    assert capsys.readouterr().out == (
        "sample: 1 of 4 mutants survive\n  eq-blind: 1\n    0, line 1: a + b -> a - b\n"
    )
