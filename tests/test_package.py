"""The package as a whole: its names, what importing it does, and the files that must agree with each other."""

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from pkgutil import resolve_name

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import environment
import vaetut
from lock import belongs_to_cuda, read_pins, roots
from other_versions import COLAB_PYTHON, lower_bounds
from vaetut.cli import BOOK, REPOSITORY, main

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = read_pins((ROOT / "requirements.lock").read_text())
COLAB = read_pins((ROOT / "tools" / "colab.txt").read_text())
# Types that functions return, raise or ask for: a chapter meets their values, and need not name them.
HANDED_OUT = {
    "ElboTerms",
    "Estimate",
    "Explorer",
    "GradientStatistics",
    "History",
    "ImageData",
    "LatentVariableModel",
    "VerificationError",
}
IN_NO_CHAPTER = {"checks"}  # it switches errors off, for an inner loop: nothing that a chapter should show


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


# Names


@pytest.mark.parametrize("name", vaetut.__all__)
def test_public_name_has_an_example(name):
    value = getattr(vaetut, name)
    assert inspect.getdoc(value), f"{name} has no docstring"
    if name not in HANDED_OUT and not inspect.ismodule(value):
        assert ">>>" in inspect.getdoc(value), f"the docstring of {name} has no example"


def names_used(source):
    """The names that Python code reads: as they are, of a module, or as a module. An import alone uses no name."""
    plain = re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE)  # without IPython's own lines
    nodes = list(ast.walk(ast.parse(plain)))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {
        *(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)),
        *(node.attr for node in nodes if isinstance(node, ast.Attribute)),
        *(part for module in modules for part in module.split(".")),
    }


@pytest.fixture(scope="module")
def in_chapters():
    notebooks = [nbformat.read(path, as_version=4) for path in (ROOT / "book").glob("*.ipynb")]
    cells = [cell.source for notebook in notebooks for cell in notebook.cells if cell.cell_type == "code"]
    return set().union(*map(names_used, cells))


@pytest.fixture(scope="module")
def in_tests():
    others = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    return set().union(*(names_used(path.read_text(encoding="utf-8")) for path in others))


@pytest.mark.parametrize("name", sorted(set(vaetut.__all__) - HANDED_OUT))
def test_public_name_is_used_in_a_chapter_and_tested(name, in_chapters, in_tests):
    assert name in in_chapters or name in IN_NO_CHAPTER, f"{name} is used in no chapter"
    assert name in in_tests, f"{name} is tested nowhere"


def test_a_comment_or_an_import_is_no_use():
    """Otherwise the test above could not fail."""
    assert names_used("from u.w import a\n# b\n'c'\nd = v.e(f)\n%g\n") == {"u", "w", "v", "e", "f"}


# Importing


IMPORT = """
import json, random, sys, warnings
import ipywidgets, matplotlib, matplotlib.pyplot, numpy, torch

def state():
    return {
        "torch random state": torch.get_rng_state().tolist(),
        "numpy random state": [str(part) for part in numpy.random.get_state()],
        "python random state": str(random.getstate()),
        "default dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "rcParams": {key: str(value) for key, value in matplotlib.rcParams.items()},
        "warning filters": [str(entry) for entry in warnings.filters],
    }

watched = []
sys.addaudithook(lambda event, args: watched.append(event) if event.startswith(("socket.", "urllib.")) else None)
before = state()
import vaetut
after = state()
print(json.dumps({"changed": [k for k in before if before[k] != after[k]], "network": watched}))
"""


def test_import_has_no_side_effects():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(done.stdout) == {"changed": [], "network": []}
    assert done.stderr == ""


# The command


@pytest.mark.parametrize("arguments", [["--version"], []])
def test_python_m_vaetut(arguments):
    command = [sys.executable, "-m", "vaetut", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    expected = f"vaetut {vaetut.__version__}\n"
    assert done.stdout == (expected if arguments else f"{expected}book    {BOOK}\nsource  {REPOSITORY}\n")


def test_unknown_argument(capsys):
    with pytest.raises(SystemExit):
        main(["--no-such-option"])
    assert "--no-such-option" in capsys.readouterr().err


# Files that must agree


def test_one_repository_url():
    addresses = {}
    for path in ROOT.rglob("*"):
        hidden = any(part in ("_build", ".git", ".venv") for part in path.relative_to(ROOT).parts)
        if path.is_file() and not hidden and path.suffix in (".py", ".md", ".yml", ".toml", ".ipynb", ".cff"):
            found = re.findall(
                r"github\.com/([\w.-]+/vaetut)\b|(?<![\w-])([\w-]+)\.github\.io/(vaetut)\b",
                path.read_text("utf-8"),
            )
            addresses |= {f"{repository or owner + '/' + page}": path for repository, owner, page in found}
    assert list(addresses) == ["vaetut/vaetut"], addresses
    assert PROJECT["urls"]["Repository"] == REPOSITORY
    assert yaml.safe_load(text("_config.yml"))["repository"]["url"] == REPOSITORY
    assert yaml.safe_load(text("CITATION.cff"))["repository-code"] == REPOSITORY


def test_one_version():
    assert vaetut.__version__ == PROJECT["version"] == yaml.safe_load(text("CITATION.cff"))["version"]
    assert re.search(rf"^## \[?{re.escape(vaetut.__version__)}\b", text("CHANGELOG.md"), re.M)


def test_lock_pins_what_pyproject_asks_for():
    for requirement in roots():
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), requirement


def missing(name, requires):
    """What a pinned package needs on this system and the lock does not pin, but for what is CUDA's."""
    needed = [Requirement(line) for line in requires]
    here = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {
        wanted
        for wanted in (canonicalize_name(one.name) for one in here)
        if wanted not in PINS and not (name == "torch" and belongs_to_cuda(wanted))
    }


def test_lock_is_closed():
    """Whatever a pinned package needs is pinned too, so that every install is the same."""
    installed = {canonicalize_name(found.name): found for found in distributions()}
    lacking = {name: missing(name, installed[name].requires or []) for name in set(PINS) & set(installed)}
    assert {name: names for name, names in lacking.items() if names} == {}


# What torch's builds for CUDA say that they need, those of PyPI for Linux: 2.11.0's, whose names are 2.14.1's too.
OF_CUDA = [
    "filelock",
    "typing-extensions>=4.10.0",
    "setuptools<82",
    "sympy>=1.13.3",
    "networkx>=2.5.1",
    "jinja2",
    "fsspec>=0.8.5",
    "cuda-toolkit[cublas,cudart,cufft]==13.0.2",
    "cuda-bindings<14,>=13.0.3",
    "nvidia-cudnn-cu13==9.19.0.56",
    "nvidia-cusparselt-cu13==0.8.0",
    "nvidia-nccl-cu13==2.28.9",
    "nvidia-nvshmem-cu13==3.4.5",
    "triton==3.6.0",
]


def test_lock_is_closed_with_cuda_too():
    assert missing("torch", OF_CUDA) == set()
    assert missing("torch", [*OF_CUDA, "torch-other"]) == {"torch-other"}
    assert missing("numpy", ["triton"]) == {"triton"}  # only torch may ask for these


def test_lock_names_no_build_and_no_server():
    lines = [line for line in text("requirements.lock").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line) for line in lines)
    assert PINS["torch"] == "2.13.0"


def test_bounds_let_colab_keep_what_it_has():
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(COLAB[requirement.name]), requirement
    assert SpecifierSet(PROJECT["requires-python"]).contains(COLAB_PYTHON)


@pytest.mark.parametrize(
    "name", ["nvidia-cudnn-cu13", "cuda-toolkit", "cuda-bindings", "triton", "torch", "numpy"]
)
def test_what_only_the_cuda_build_of_torch_needs(name):
    assert belongs_to_cuda(name) == (name not in ("torch", "numpy"))
    assert not belongs_to_cuda(name) or name not in PINS


def test_the_lower_bounds_are_exact_versions_of_what_tests_need():
    bounds = {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lower_bounds())
    }
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(bounds[canonicalize_name(requirement.name)]), requirement
        assert str(requirement.specifier) == f">={bounds[canonicalize_name(requirement.name)]}"
    assert {"scipy", "pytest", "lightning-fabric"} <= set(bounds)
    assert not {"ruff", "mypy", "jupyter-book"} & set(bounds)


def test_the_slow_tests_exist():
    listed = text("tests/slow.txt").split("\n\n", 1)[1].splitlines()
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = {line.partition("[")[0] for line in listed}
    doctests = {name for name in names if "." in name}
    assert [name for name in names - doctests if f"def {name}(" not in sources] == []
    assert [name for name in doctests if ">>>" not in (inspect.getdoc(resolve_name(name)) or "")] == []
    assert listed == sorted(set(listed))


def test_conda_environment_is_the_lock():
    *conda, pip = yaml.safe_load(text("environment.yml"))["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    python = next(line.partition("=")[2] for line in conda if line.startswith("python="))
    assert python in environment.TESTED


def test_python_versions_agree():
    classifiers = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    workflow = yaml.safe_load(text(".github/workflows/ci.yml"))
    assert list(environment.TESTED) == classifiers == workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={environment.TESTED[0]}"
    other = yaml.safe_load(text(".github/workflows/versions.yml"))["jobs"]
    used = {name: job["steps"][1]["with"]["python-version"] for name, job in other.items()}
    assert used == {"lower": environment.TESTED[0], "colab": COLAB_PYTHON}


# Docstrings


def public_objects():
    """Every function and class that the package and its topic packages export, by name."""
    found = {}
    for module in (vaetut, vaetut.distributions, vaetut.reparam, vaetut.bounds, vaetut.gradients):
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and thing.__module__.startswith("vaetut"):
                found.setdefault(f"{module.__name__}.{name}", thing)
    return found


MEASURED_IN_NATS = {  # what returns, or holds, information
    *("ElboTerms", "History", "entropy", "cross_entropy", "kl_divergence"),
    *("monte_carlo_entropy", "monte_carlo_cross_entropy", "monte_carlo_kl"),
    *(
        "elbo_terms",
        "sgvb_a",
        "sgvb_b",
        "minibatch_bound",
        "log_weights",
        "iwae_bound",
        "cubo_bound",
        "log_evidence",
    ),
    *("sticking_the_landing", "doubly_reparameterized", "LinearGaussian", "DiscreteMixture", "train", "VAE"),
}


@pytest.mark.parametrize("name", public_objects())
def test_docstring_is_complete(name):
    thing = public_objects()[name]
    doc = inspect.getdoc(thing)
    if inspect.isclass(thing):  # with what its methods and properties say
        doc += "\n".join(inspect.getdoc(v) or "" for k, v in vars(thing).items() if not k.startswith("_"))
    assert ">>> " in doc, "an example"
    assert re.search(r"``eq-[\w-]+``|AEVB|[Cc]hapters? \d|\(\d{4}\)|every chapter|is tested\*", doc), (
        "the source"
    )
    if inspect.isfunction(thing) and inspect.signature(thing).parameters:
        assert re.search(r"^Raises:|rrors (are )?as |, errors and", doc, re.M), "the errors"
    if name.rpartition(".")[2] in MEASURED_IN_NATS:
        assert re.search(r"\b[Nn]ats\b", doc), "the unit"
