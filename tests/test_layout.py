"""The package's layout: a door for each chapter, who may import whom, and what importing it loads."""

import ast
import doctest
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

import vaetut

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vaetut"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Which rooms of the package a room may import from, besides itself and `_support`.
RESULTS = {"distributions", "reparam", "gradients", "exact", "information", "quadrature", "bounds"}
MAY_IMPORT = {
    "_support": set(),
    "distributions": set(),
    "information": {"distributions"},
    "data": set(),
    "teaching": set(),
    "reparam": {"distributions"},
    "gradients": {"distributions", "reparam"},
    "exact": {"distributions", "information"},
    "quadrature": {"distributions", "information"},
    "bounds": {"distributions", "exact", "information", "quadrature"},
    "models": {"distributions", "exact", "information", "bounds"},
    "aevb": {*RESULTS, "models", "data"},
    "experiments": {*RESULTS, "models", "data", "aevb", "teaching"},
    "cli": {*RESULTS, "models", "data", "aevb", "teaching"},
}
# Modules whose names begin with an underscore, and that other rooms may use all the same.
SHARED = {"vaetut._support", "vaetut.distributions._special"}
# Violations that are known, to be deleted one by one: (module, what it imports).
KNOWN_IMPORTS = {
    ("vaetut.aevb.history", "vaetut.teaching.plots"),  # History.plot, when it is called
}
KNOWN_UNDERSCORES: set[tuple[str, str]] = set()
KNOWN_CHAPTERLESS: set[str] = set()


@cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path):
    """The dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module):
    """The package or module directly below `vaetut` that a dotted name belongs to."""
    return ".".join(module.split(".")[1:2])


def is_module(name):
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(path):
    """What a module imports of ours, also inside functions: pairs of a module, and a name of it or None."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names if alias.name.split(".")[0] == "vaetut"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module.split(".")[0] == "vaetut":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found.add((whole, None) if is_module(whole) else (node.module, alias.name))
    return found


def other_rooms(path):
    """The imports of a module that cross from one room into another."""
    here = room(name_of(path))
    return {(module, name) for module, name in imports(path) if room(module) not in ("", here)}


def underscores(path):
    """Names with an underscore that a module takes from another room, by import or as an attribute."""
    found = set()
    for module, name in other_rooms(path):
        shared = any(module == one or module.startswith(one + ".") for one in SHARED)
        private = any(part.startswith("_") for part in module.split("."))
        if (private and not shared) or (name or "").startswith("_"):
            found.add(f"{module}.{name}" if name else module)
    aliases = {}
    tree = parsed(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaetut"):
            for alias in node.names:
                if is_module(whole := f"{node.module}.{alias.name}"):
                    aliases[alias.asname or alias.name] = whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = aliases.get(node.value.id, "")
            foreign = room(module) not in ("", room(name_of(path)))
            if foreign and re.match("_[^_]", node.attr):
                found.add(f"{module}.{node.attr}")
    return found


# Who may import whom


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_from_rooms_below_it(path):
    here = room(name_of(path))
    if name_of(path) in ("vaetut", "vaetut.__main__"):
        return
    assert here in MAY_IMPORT, f"{here} is a new room: say in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[here] | {"_support"}
    wrong = {(name_of(path), module) for module, _ in other_rooms(path) if room(module) not in allowed}
    assert wrong == {known for known in KNOWN_IMPORTS if known[0] == name_of(path)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_takes_private_names_from_another_room(path):
    wrong = {(name_of(path), name) for name in underscores(path)}
    assert wrong == {known for known in KNOWN_UNDERSCORES if known[0] == name_of(path)}


def test_the_reader_of_imports_sees_what_it_should(tmp_path, monkeypatch):
    """Otherwise the two tests above could not fail."""
    (tmp_path / "vaetut" / "bounds").mkdir(parents=True)
    for name in ("data", "exact", "bounds/__init__"):
        (tmp_path / "vaetut" / f"{name}.py").write_text("")
    path = tmp_path / "vaetut" / "bounds" / "elbo.py"
    path.write_text(
        "from vaetut import exact as models\n"
        "from vaetut.exact import _hidden\n"
        "def late():\n    from vaetut.data import load\n    return models._other, models.__name__\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert {room(module) for module, _ in other_rooms(path)} == {"exact", "data"}
    assert underscores(path) == {"vaetut.exact._hidden", "vaetut.exact._other"}


def test_the_root_shows_the_rooms_alone():
    files = {path.name for path in PACKAGE.iterdir() if path.name.startswith("_")}
    assert files <= {"__init__.py", "__main__.py", "__pycache__", "_support"}


# Chapters and docstrings


def table():
    """The rows of the table in the docstring of `vaetut`: {chapter: [modules]}."""
    rows = re.findall(r"^(\d\d-[\w-]+) +(.+)$", vaetut.__doc__, re.MULTILINE)
    return {chapter: re.findall(r"`(vaetut[\w.]*)`", modules) for chapter, modules in rows}


def docstring(path):
    return ast.get_docstring(parsed(path)) or ""


def chapters_named(path):
    """The chapters that a module's docstring names, by number: ``chapter 7``, ``chapters 2, 5 and 13``."""
    found = set()
    for part in re.findall(r"[Cc]hapters?\s((?:\d+(?:,| and| to)?\s?)+)", docstring(path)):
        numbers = [int(number) for number in re.findall(r"\d+", part)]
        found |= set(range(numbers[0], numbers[-1] + 1)) if " to " in part else set(numbers)
    return found


def test_the_table_holds_the_chapters_of_the_book_in_order():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    chapters = [page.removeprefix("book/") for page in pages if re.match(r"book/\d\d-", page)]
    assert list(table()) == chapters
    assert len(table()) >= 13


@pytest.mark.parametrize(
    ("chapter", "module"), [(chapter, module) for chapter, modules in table().items() for module in modules]
)
def test_a_module_of_the_table_names_its_chapter(chapter, module):
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    named = int(chapter[:2]) in chapters_named(path)
    assert named == (module not in KNOWN_CHAPTERLESS), f"the docstring of {module} names chapter {chapter}"


def test_every_label_in_a_docstring_is_an_equation_of_the_book():
    labels = set(json.loads((ROOT / "vaetut" / "teaching" / "equations.json").read_text(encoding="utf-8")))
    assert len(labels) >= 280
    parser, missing, seen = doctest.DocTestParser(), [], 0
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(node) or ""
            prose = "".join(part for part in parser.parse(text) if isinstance(part, str))  # without examples
            for label in re.findall(r"\beq-[a-z0-9][\w-]*", prose):
                seen += 1
                if label not in labels:
                    missing.append(f"{name_of(path)}: {label}")
    assert missing == []
    assert seen > 10


# Importing


HEAVY = ["matplotlib", "ipywidgets", "PIL", "sklearn", "pooch", "scipy", "lightning_fabric", "IPython"]


def test_import_loads_nothing_heavy():
    code = f"import sys, vaetut; vaetut.train, vaetut.verify; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_lazy_names_are_like_all_others():
    code = (
        "import vaetut; assert {'plots', 'explore', 'Explorer'} <= set(dir(vaetut)) & set(vaetut.__all__)\n"
        "from vaetut import Explorer, explore, plots\n"
        "assert vaetut.plots is plots and vaetut.explore is explore and 'plots' in vars(vaetut)\n"
        "assert plots.__name__ == 'vaetut.teaching.plots' and isinstance(Explorer, type)\n"
        "from vaetut import *\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'vaetut' has no attribute 'no_such_name'"):
        _ = vaetut.no_such_name
    with pytest.raises(ImportError):
        exec("from vaetut import no_such_name")


def test_tab_completion_lists_no_helper_of_the_package():
    assert not {"Any", "TYPE_CHECKING", "import_module", "interrupt"} & set(dir(vaetut))
