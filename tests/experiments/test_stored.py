"""The results that come with the package, so that chapter 12 needs nothing of the repository."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from vaetut.experiments import stored

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "vaetut" / "experiments" / "results").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_results_are_whole_and_say_how_they_were_made(name: str) -> None:
    results = stored(name)
    assert results == json.loads((ROOT / "vaetut" / "experiments" / "results" / f"{name}.json").read_text())
    assert results["versions"]["torch"] and results["command"].startswith("python -m vaetut.experiments")
    assert results.get("curves") or results.get("runs") or results.get("manifold")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'figure2', 'figure3'.*got 'figure9'"):
        stored("figure9")


def test_results_add_little_to_the_package() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "vaetut" / "experiments" / "results").iterdir()]
    assert sum(sizes) < 200_000


def test_no_chapter_reads_a_file_of_the_repository() -> None:
    """On Colab there is none of them: what a cell reads comes with the package, or the cell writes it itself."""
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                assert not re.search(r"\bread_json\b|[\"'](\.\./|results/|book/)", cell.source), (
                    f"{path.name}, cell {cell.id}"
                )
