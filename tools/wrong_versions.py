"""Show that each check of the book can fail: `verify` must raise for every wrong version of its equation.

    python tools/wrong_versions.py          # every chapter
    python tools/wrong_versions.py 02       # one of them, each version with its outcome
    python tools/wrong_versions.py 02 --json

`tests/book/wrong/NN-name.toml` holds the wrong versions of the chapter `book/NN-name.ipynb`:

    [eq-bound-plus-gap]
    "the gap to the prior" = ["kl_divergence(q, model.posterior(x))", "kl_divergence(q, model.prior)"]

is a table for each label, and in it a name, the text that the cell with this label's `verify` has exactly once, and
what stands in its place in the wrong version. A version is *rejected* if the cell then raises VerificationError for
this label. A cell that raises anything else is a mistake in the version, and no evidence that the check works.

The cells of a chapter run in order, in one namespace; those that only draw a figure are passed over. In the cell of a
check the process forks once for each version, before the first statement that the version changes: the child runs the
changed cell from there on and says what happened, and the parent continues unchanged.
"""

import argparse
import ast
import contextlib
import dis
import gc
import importlib
import io
import itertools
import json
import linecache
import os
import signal
import subprocess
import sys
import threading
import tomllib
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nbformat import NotebookNode

import book_rules as rules
import stored_form

ROOT = Path(__file__).resolve().parent.parent
WRONG = ROOT / "tests" / "book" / "wrong"
SECONDS = float(os.environ.get("VAETUT_VERSION_SECONDS", "60"))  # of processor time, for a version
PATIENCE = 30  # how many times as long it may take by the clock: it may sleep, or the machine may be busy
# A child has the thread that forked and no other, so nothing may be running beside it.
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "TQDM_DISABLE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "agg",
}

Versions = dict[str, dict[str, tuple[str, str]]]  # label -> name -> old text, new text


class Outcome(NamedTuple):
    """The outcome of one wrong version; `status` is 'rejected', or says what is wrong with the check or the version."""

    label: str
    name: str
    status: str
    detail: str = ""


class Variant(NamedTuple):
    """A changed text of the cell that verifies a label."""

    label: str
    name: str
    source: str


# The files


def chapters() -> list[Path]:
    return sorted((ROOT / "book").glob("*.ipynb"))


def versions_file(chapter: Path) -> Path:
    return WRONG / f"{chapter.stem}.toml"


def read_versions(path: Path) -> Versions:
    """The wrong versions of a file; ValueError if an entry has another form than name = [old text, new text]."""
    if not path.exists():
        return {}
    found: Versions = {}
    for label, entries in tomllib.loads(path.read_text(encoding="utf-8")).items():
        if not isinstance(entries, dict):
            raise ValueError(f"{path.name}: {label} must be a table, [{label}]")
        for name, change in entries.items():
            pair = isinstance(change, list) and len(change) == 2 and all(isinstance(t, str) for t in change)
            if not pair or not change[0]:
                raise ValueError(f'{path.name}: [{label}] "{name}" must be ["old text", "new text"]')
            found.setdefault(label, {})[name] = (change[0], change[1])
    return found


def count_versions() -> int:
    """How many wrong versions the book has; tests/book/test_wrong_versions.py shows that each is rejected."""
    return sum(len(entries) for path in WRONG.glob("*.toml") for entries in read_versions(path).values())


def labels_with_fewer_than_two(notebook: NotebookNode, versions: Versions) -> list[str]:
    labels = [found.label for found in rules.equations(notebook) if found.label]
    return [label for label in labels if len(versions.get(label, {})) < 2]


def change(label: str, name: str, source: str, old: str, new: str) -> Variant | Outcome:
    """The cell's text with the replacement made, or what forbids it."""
    times = source.count(old)
    if times != 1:
        what = "old text is not in the cell" if not times else f"old text stands {times} times in the cell"
        return Outcome(label, name, what, old)
    changed = source.replace(old, new)
    try:
        same = ast.dump(rules.parse(changed)) == ast.dump(rules.parse(source))
    except SyntaxError as error:
        return Outcome(label, name, "not Python", str(error))
    return Outcome(label, name, "changes nothing", old) if same else Variant(label, name, changed)


# Running a chapter


def try_versions(chapter: Path, versions: Versions) -> list[Outcome]:
    """Run the chapter and try each of its wrong versions at the check that must reject it."""
    notebook = stored_form.read(chapter)
    outcomes: list[Outcome] = []
    variants: list[Variant] = []
    cells = {found.label: found.cell for found in rules.verifications(notebook) if found.label}
    for label, entries in versions.items():
        for name, (old, new) in entries.items():
            if label not in cells:
                outcomes.append(Outcome(label, name, "no cell verifies this label"))
                continue
            found = change(label, name, notebook.cells[cells[label]].source, old, new)
            if isinstance(found, Variant):
                variants.append(found)
            else:
                outcomes.append(found)
    return outcomes + try_variants(notebook, chapter.parent, variants)


def try_variants(
    notebook: NotebookNode, folder: Path, variants: list[Variant], seconds: float = SECONDS
) -> list[Outcome]:
    """Run the code cells that the checks concerned need; at each of these checks, try its variants in children."""
    outcomes: list[Outcome] = []
    cells = {found.label: found.cell for found in rules.verifications(notebook)}
    needed = cells_needed(notebook, {cells[variant.label] for variant in variants})
    namespace = new_namespace()
    with working_in(folder):
        for i in needed:
            here = [variant for variant in variants if cells[variant.label] == i]
            try:
                outcomes += run_cell_with(here, notebook.cells[i].source, namespace, f"<cell {i}>", seconds)
            except Exception as error:
                raise RuntimeError(
                    f"cell {i}, as it stands, raises {type(error).__name__}: {error}"
                ) from error
    return outcomes


def cells_needed(notebook: NotebookNode, checks: set[int]) -> list[int]:
    """The code cells up to the last of these checks, without those that only draw a figure or print a table.

    Such a cell is titled "Code of this …"; it is run if it binds a name that a later cell, or any function, reads.
    """
    code = [(i, cell.source) for i, cell in rules.cells(notebook, "code") if i <= max(checks, default=-1)]
    shows = {i for i, source in code if source.startswith("# @title Code of this")} - checks
    names = {i: names_of(source) for i, source in code}
    in_functions = set().union(*(found.in_functions for i, found in names.items() if i not in shows))
    needed: list[int] = []
    read: set[str] = set()
    for i, _ in reversed(code):
        if i not in shows or names[i].bound & (read | in_functions):
            needed.append(i)
            read = (read - names[i].bound) | names[i].read
    return needed[::-1]


class Names(NamedTuple):
    """The names that a cell binds, those that it reads before it binds them, and those that its functions read."""

    bound: set[str]
    read: set[str]
    in_functions: set[str]


def names_of(source: str) -> Names:
    found = Names(set(), set(), set())
    for step in dis.get_instructions(compile(rules.without_magics(source), "<cell>", "exec")):
        if step.opname == "STORE_NAME":
            found.bound.add(step.argval)
        elif step.opname == "LOAD_NAME" and step.argval not in found.bound:
            found.read.add(step.argval)
        elif isinstance(step.argval, types.CodeType):
            found.in_functions.update(globals_of(step.argval))
    found.read.update(found.in_functions - found.bound)
    return found


def globals_of(code: types.CodeType) -> set[str]:
    """The names that a function, and what is defined in it, looks up outside of functions (or as an attribute)."""
    inner = (globals_of(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*inner)


def new_namespace() -> dict[str, Any]:
    """A module of its own, since pickle and dataclasses look a class up in the module that it names."""
    import tqdm

    import vaetut

    importlib.import_module(
        "torch._dynamo"
    )  # torch does so at the first gradient: once here, not in every child
    tqdm.tqdm.monitor_interval = 0  # the monitor is a thread
    vaetut.explore = lambda *args, **kwargs: None  # type: ignore[assignment]  # hundreds of frames that nobody sees
    module = types.ModuleType("__main__")
    module.__dict__["display"] = lambda *args, **kwargs: None  # the kernel has it without an import
    sys.modules["__main__"] = module
    return module.__dict__


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work where the notebook's kernel would, and say nothing."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.chdir(before)


def statements(source: str, name: str) -> list[ast.stmt]:
    """The statements of a cell, whose text is kept for tracebacks and for inspect."""
    source = rules.without_magics(source)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return ast.parse(source, name).body


def run(parts: list[ast.stmt], namespace: dict[str, Any], name: str) -> None:
    """Execute statements; the value of the last one is not shown."""
    exec(compile(ast.Module(parts, []), name, "exec"), namespace)


def run_cell(source: str, namespace: dict[str, Any], name: str, start: int = 0) -> None:
    """Execute a cell, from one of its statements on."""
    run(statements(source, name)[start:], namespace, name)
    close_figures()


def close_figures() -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def run_cell_with(
    variants: list[Variant], source: str, namespace: dict[str, Any], name: str, seconds: float
) -> list[Outcome]:
    """Execute a cell statement by statement, and its variants in children, each from its first change on.

    What stands before the change is the same in the variant as in the cell, and is executed once for all.
    """
    parts = statements(source, name)
    starts = {variant: first_change(parts, rules.parse(variant.source).body) for variant in variants}
    found = {}
    for k in range(len(parts) + 1):
        for variant, start in starts.items():
            if start == k:
                status, detail = in_child(partial(judge, variant, start, namespace), seconds)
                found[variant] = Outcome(variant.label, variant.name, status, detail)
        run(parts[k : k + 1], namespace, name)
    close_figures()
    return [found[variant] for variant in variants]


def first_change(parts: list[ast.stmt], changed: list[ast.stmt]) -> int:
    """How many statements two texts have in common before they first differ."""
    same = (ast.dump(old) == ast.dump(new) for old, new in zip(parts, changed, strict=False))
    return sum(itertools.takewhile(bool, same))


def judge(variant: Variant, start: int, namespace: dict[str, Any]) -> tuple[str, str]:
    """Run the changed cell from its first changed statement on and say what came of it."""
    from vaetut import VerificationError

    try:
        run_cell(variant.source, namespace, "<wrong version>", start)
    except VerificationError as error:
        mine = str(error).startswith(f"{variant.label}:")
        return ("rejected" if mine else "another label's check raised"), str(error)
    except BaseException as error:
        return "raises something else", f"{type(error).__name__}: {error}"
    return "survived", ""


def in_child(task: Callable[[], tuple[str, str]], seconds: float) -> tuple[str, str]:
    """Do the task in a fork of this process, so that nothing that it changes is changed here."""
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise RuntimeError(f"only the main thread may be alive at a fork, and there are {names}")
    reader, writer = os.pipe()
    gc.freeze()  # a collection in the child would write to the pages of all objects, and so copy them
    child = os.fork()
    if not child:
        gc.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)
        with open(writer, "w") as pipe:
            json.dump(task(), pipe)
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not answer:
        late = code in (-signal.SIGPROF, -signal.SIGALRM)
        return "no answer", f"within {seconds:g} s" if late else f"exit code {code}"
    status, detail = json.loads(answer)
    return status, detail


# The command


def outcomes_of(chapter: Path, versions: Path) -> list[Outcome]:
    """The outcomes of one chapter, from a process of its own."""
    command = [sys.executable, __file__, str(chapter), "--json", "--versions", str(versions)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ALONE)
    if done.returncode:
        raise RuntimeError(f"{chapter.name}: {done.stderr.strip()}")
    return [Outcome(*entry) for entry in json.loads(done.stdout)]


def not_rejected(chapter: Path) -> list[Outcome]:
    """The wrong versions of a chapter that are not rejected, for whatever reason."""
    path = versions_file(chapter)
    outcomes = outcomes_of(chapter, path)
    assert len(outcomes) == sum(map(len, read_versions(path).values()))
    return [outcome for outcome in outcomes if outcome.status != "rejected"]


def find_chapters(names: list[str]) -> list[Path]:
    """Chapters by path or by the beginning of their name; all of them without a name."""
    found = []
    for name in names:
        given = (
            [Path(name)] if name.endswith(".ipynb") else [c for c in chapters() if c.name.startswith(name)]
        )
        if not given:
            raise SystemExit(f"no chapter begins with {name!r}")
        found += given
    return found or chapters()


def report(chapter: Path) -> int:
    """Print what came of each version of a chapter; how many were not rejected."""
    versions = read_versions(versions_file(chapter))
    outcomes = outcomes_of(chapter, versions_file(chapter)) if versions else []
    print(f"{chapter.stem}")
    for outcome in outcomes:
        detail = "" if outcome.status == "rejected" else f"  {outcome.detail}"
        print(f"  {outcome.status:12} {outcome.label}: {outcome.name}{detail}")
    few = labels_with_fewer_than_two(stored_form.read(chapter), versions)
    bad = sum(outcome.status != "rejected" for outcome in outcomes)
    print(
        f"  {len(outcomes) - bad} of {len(outcomes)} rejected; labels with fewer than two versions: {len(few)}"
    )
    for label in few:
        print(f"    {label} has {len(versions.get(label, {}))}")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "chapter", nargs="*", help="a notebook, or how its name begins, such as 02; default: all"
    )
    parser.add_argument("--json", action="store_true", help="the outcomes of one chapter, for other programs")
    parser.add_argument(
        "--versions", type=Path, help="with --json: the file to use instead of the chapter's own"
    )
    arguments = parser.parse_args()
    found = find_chapters(arguments.chapter)
    if arguments.json:
        (chapter,) = found
        versions = read_versions(arguments.versions or versions_file(chapter))
        print(json.dumps(try_versions(chapter.resolve(), versions)))
        return 0
    return 1 if sum(report(chapter) for chapter in found) else 0


if __name__ == "__main__":
    sys.exit(main())
