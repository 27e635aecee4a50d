"""Run the package with other versions than those of requirements.lock, in an environment of its own in _build.

    python tools/other_versions.py lower    # the lower bounds of pyproject.toml, exactly: the package's tests
    python tools/other_versions.py colab    # Colab's versions, tools/colab.txt: every notebook, from elsewhere
    python tools/other_versions.py lab      # JupyterLab 4: tests/book/test_jupyter.py opens chapters in it

The first two take several gigabytes the first time where pip gets torch's CUDA build; the last takes 240 MB.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
COLAB = ROOT / "tools" / "colab.txt"
COLAB_PYTHON = "3.13"
LAB = ["jupyterlab>=4.4,<5", "jupyterlab_widgets>=3,<4"]  # the second shows the widgets of ipywidgets 8
# Programs that look at the sources or the pages; a test of the package imports none of them.
PROGRAMS = {
    "jupyter-cache",
    "mypy",
    "nbval",
    "playwright",
    "pre-commit",
    "ruff",
    "types-PyYAML",
    "types-tqdm",
    "codespell",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", choices=("lower", "colab", "lab", "notebooks"))
    parser.add_argument(
        "paths", nargs="*", type=Path, help="with notebooks: those to run in this environment"
    )
    arguments = parser.parse_args()
    if arguments.which == "lower":
        return lower()
    if arguments.which == "lab":
        return lab()
    return colab() if arguments.which == "colab" else run_notebooks(arguments.paths)


# The lower bounds


def lower_bounds() -> list[str]:
    """Each requirement of the package, the extra `scale` and the tests, at the least version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["scale"], *extras["test"]]
    wanted += [line for line in extras["book"] if line.startswith("nbformat")]  # tests read the notebooks
    names = {re.split(r"[><=]", line)[0].strip(): line for line in wanted}
    return [line.replace(">=", "==").split(",")[0] for name, line in names.items() if name not in PROGRAMS]


def lower() -> int:
    """Run the package's tests at the lower bounds."""
    python = environment("lower", lowest_python(), lower_bounds())
    run(python, "-m", "pip", "install", "-q", "flit_core")
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", ".")
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", "vaetut", "--ignore", "tests/book"]
    return subprocess.run([python, *tests, *selection()], cwd=ROOT).returncode


def selection() -> list[str]:
    """All but the tests of the book, and of the lock, whose versions are others."""
    lock = ("test_lock_is_closed", "test_lock_pins_what_pyproject_asks_for")
    return ["-m", "not book and not browser", *(f"--deselect=tests/test_package.py::{name}" for name in lock)]


def lowest_python() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["requires-python"]).removeprefix(">=")


# Colab


def colab() -> int:
    """Install the wheel beside Colab's versions and run every notebook in a folder outside of the repository."""
    pins = [line for line in COLAB.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    python = environment("colab", COLAB_PYTHON, [*pins, "nbclient", "nbformat"])
    run(python, "-m", "pip", "uninstall", "-q", "--yes", "vaetut")
    before = freeze(python)
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, str(ROOT))
        (wheel,) = Path(folder).glob("vaetut-*.whl")
        run(python, "-m", "pip", "install", "-q", str(wheel))
        replaced = [line for line in before if line not in freeze(python)]
        if replaced:
            print(f"installing vaetut replaced {', '.join(replaced)}", file=sys.stderr)
            return 1
        for notebook in sorted((ROOT / "book").glob("*.ipynb")):
            shutil.copy(notebook, folder)
        for script in ("other_versions.py", "book_rules.py", "stored_form.py", "tex_macros.py"):
            shutil.copy(ROOT / "tools" / script, folder)
        names = sorted(path.name for path in Path(folder).glob("*.ipynb"))
        command = [python, "other_versions.py", "notebooks", *names]
        kernels = {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(command, cwd=folder, env=clean | kernels).returncode


def lab() -> int:
    """JupyterLab in an environment of its own; its kernel is the Python that runs this, with the book's versions."""
    python = environment("lab", f"{sys.version_info.major}.{sys.version_info.minor}", LAB)
    kernel = Path(python).parents[1] / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return 0


def run_notebooks(paths: list[Path]) -> int:
    """Execute notebooks in this environment; say which fail, and which cells print something else than is stored."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    failed = 0
    for path in paths:
        stored = nbformat.read(path, as_version=4)
        fresh = nbformat.read(path, as_version=4)
        start = time.monotonic()
        try:
            NotebookClient(fresh, timeout=1200, kernel_name="python3", coalesce_streams=True).execute()
        except CellExecutionError as error:
            failed += 1
            print(f"{path}: FAILED\n{error}", flush=True)
            continue
        other = [
            old.id
            for old, new in zip(stored.cells, fresh.cells, strict=True)
            if old.cell_type == "code" and printed(old) != printed(new)
        ]
        note = f"; other text than stored: {', '.join(other)}" if other else ""
        print(f"{path}: {time.monotonic() - start:.1f} s{note}", flush=True)
    print(f"{len(paths) - failed} passed, {failed} failed")
    return 1 if failed else 0


def printed(cell: object) -> str:
    """What a cell writes to its two streams."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")  # type: ignore[attr-defined]


# Environments


def environment(name: str, version: str, wanted: list[str]) -> str:
    """The Python of an environment in _build with the wanted packages, made if there is none with just these."""
    folder = BUILD / name
    stamp, text = folder / "installed.txt", "\n".join([version, *wanted])
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != text:
        print(f"Making {folder.relative_to(ROOT)} with Python {version}: {', '.join(wanted)}", flush=True)
        run(find_python(version), "-m", "venv", "--clear", str(folder))
        run(str(python), "-m", "pip", "install", "-q", *wanted)
        stamp.write_text(text)
    return str(python)


def find_python(version: str) -> str:
    """A Python of this version: on the path, or among pyenv's."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    found = shutil.which(f"python{version}") if not pyenv else str(pyenv[-1])
    if not found:
        raise SystemExit(f"vaetut: no Python {version} found; install it, or put it on the path")
    return found


def freeze(python: str) -> list[str]:
    done = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def run(*command: str) -> None:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if subprocess.run(command, cwd=ROOT, env=clean).returncode:
        raise SystemExit(f"vaetut: this failed: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
