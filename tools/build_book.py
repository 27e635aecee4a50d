"""Build the book with Jupyter Book, strictly: a warning is an error.

    python tools/build_book.py              # the pages, from the outputs that the notebooks hold
    python tools/build_book.py --checked    # no pages: note that these outputs have passed `make outputs`

No notebook is executed: the pages show the stored outputs, and `make outputs` (a part of `make test`) proves that
they are those of the present code. The build says whether that was done since the last change, and every page says
which code it was built with. If the book is newer than all of its sources, nothing is done; otherwise all pages
are built again, so that no stale page and no stale warning remains.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import access
import first_page
import light_pages
import notebooks
import numbering
import page_heads
import styles
import typeset

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
PAGE = BUILD / "html" / "index.html"


def main() -> int:
    outputs = code_digest() + digest(files("book"))
    if "--checked" in sys.argv:
        write_stamp("outputs", outputs)
        return 0
    everything = outputs + digest([*ROOT.glob("_*.yml"), *ROOT.glob("*.md"), *files("tools")])
    if not PAGE.exists() or stamp("book") != everything:
        write_stamp("book", "")
        for stale in ("html", ".doctrees", "jupyter_execute"):
            shutil.rmtree(BUILD / stale, ignore_errors=True)
        print("Building the book ...", flush=True)
        options = ["-W", "-n", "--keep-going", "--quiet"]
        command = [str(Path(sys.executable).parent / "jupyter-book"), "build", str(ROOT), *options]
        if subprocess.run(command, cwd=ROOT).returncode or not PAGE.exists():
            print("vaetut: the book could not be built; the warnings above say why", file=sys.stderr)
            return 1
        finish(BUILD / "html")
        print(light_pages.table(BUILD / "html"))
        write_stamp("book", everything)
    if stamp("outputs") != outputs:
        print(
            "Its outputs are those stored in the notebooks; make outputs checks that the present code produces them."
        )
    print(f"The book is built. Open this page in a browser:\n{PAGE}")
    return 0


def finish(site: Path) -> None:
    """Make of Sphinx's pages what a reader meets."""
    page_heads.write_heads(site, notebooks.counts())
    first_page.make_cards(site)
    access.make_accessible(site)
    typeset.typeset(site)
    numbering.number(site)
    light_pages.lighten(site)
    styles.bundle(site)


def code_digest() -> str:
    """A hash of all that the notebooks' outputs follow from, but for the notebooks: the package and the versions."""
    return digest([*files("vaetut"), ROOT / "requirements.lock"])


def files(folder: str) -> list[Path]:
    return [
        p
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)
    ]


def digest(paths: Iterable[Path]) -> str:
    """One hash of the files' names and contents."""
    total = hashlib.sha256()
    for path in sorted(paths):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    return total.hexdigest()


def stamp(name: str) -> str:
    path = BUILD / f"{name}.sha256"
    return path.read_text() if path.exists() else ""


def write_stamp(name: str, value: str) -> None:
    BUILD.mkdir(exist_ok=True)
    (BUILD / f"{name}.sha256").write_text(value)


if __name__ == "__main__":
    sys.exit(main())
