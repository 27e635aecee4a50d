"""Try answers to the exercises: each right one must pass its checker, each tempting wrong one must get its sentence.

    python tools/answers.py 02       # each answer of chapter 2, with the outcome

`tests/book/answers/NN-name.toml` holds them, a table for each checker of the chapter:

    [check_stubborn]
    right = ["lambda mean, scale, s: (mean, 0.5 * ((s / scale) ** 2 - 1 - 2 * math.log(s / scale)))"]
    [check_stubborn.wrong]
    "the scale for the variance" = ["lambda mean, scale, s: ...", "words that the message must contain"]

An answer is Python in the notebook's namespace as it is after the last cell: an expression, or statements that define
``answer``. A checker accepts by returning and refuses with an AssertionError whose message is for the learner.
"""

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import book_rules as rules
import stored_form
from wrong_versions import ALONE, chapters, find_chapters, new_namespace, run_cell, working_in

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ROOT / "tests" / "book" / "answers"


class Tried(NamedTuple):
    """The outcome of an answer; `problem` is empty if it is as expected."""

    checker: str
    name: str
    problem: str


def read(chapter: Path) -> dict[str, Any]:
    path = ANSWERS / f"{chapter.stem}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def checkers(chapter: Path) -> list[str]:
    """The names of the functions ``check_...`` that a chapter defines among its exercises."""
    notebook = stored_form.read(chapter)
    start = next((i for i, _, text in rules.headings(notebook) if text == "Exercises"), len(notebook.cells))
    code = [cell for i, cell in rules.cells(notebook, "code") if i > start]
    nodes = [node for cell in code for node in rules.parse(cell.source).body]
    return [
        node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    ]


def value_of(source: str, namespace: dict[str, Any]) -> Any:
    """The value of an expression, or of ``answer`` after some statements."""
    inside = dict(namespace)
    try:
        return eval(compile(source.strip(), "<answer>", "eval"), inside)
    except SyntaxError:
        exec(compile(source, "<answer>", "exec"), inside)
        return inside["answer"]


def try_answer(checker: str, source: str, namespace: dict[str, Any]) -> str | None:
    """None if the checker accepts, else its message; another exception than AssertionError is passed on."""
    import torch

    torch.manual_seed(0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            namespace[checker](value_of(source, namespace))
    except AssertionError as error:
        return str(error) or "(an AssertionError without a message)"
    return None


def try_all(chapter: Path) -> list[Tried]:
    """Run the chapter, then try each of its answers."""
    namespace = new_namespace()
    tried = []
    with working_in(chapter.parent):
        for i, cell in rules.cells(stored_form.read(chapter), "code"):
            run_cell(cell.source, namespace, f"<cell {i}>")
        for checker, answers in read(chapter).items():
            entries: list[tuple[str, str, str | None]] = [
                (f"right {n}", source, None) for n, source in enumerate(answers.get("right", []), 1)
            ]
            entries += [(name, *entry) for name, entry in answers.get("wrong", {}).items()]
            for name, source, words in entries:
                try:
                    message = try_answer(checker, source, namespace)
                except Exception as error:
                    tried.append(Tried(checker, name, f"raises {type(error).__name__}: {error}"))
                    continue
                if words is None:
                    problem = "" if message is None else f"is right, and refused: {message}"
                elif message is None:
                    problem = "is wrong, and accepted"
                else:
                    problem = "" if words in message else f"gets another message: {message}"
                tried.append(Tried(checker, name, problem))
    return tried


def outcomes_of(chapter: Path) -> list[Tried]:
    """What came of the answers of one chapter, from a process of its own."""
    command = [sys.executable, __file__, str(chapter), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ALONE)
    if done.returncode:
        raise RuntimeError(f"{chapter.name}: {done.stderr.strip()}")
    return [Tried(*entry) for entry in json.loads(done.stdout)]


def main() -> int:
    names = [name for name in sys.argv[1:] if name != "--json"]
    found = find_chapters(names) if names else chapters()
    if "--json" in sys.argv:
        print(json.dumps(try_all(found[0].resolve())))
        return 0
    bad = 0
    for chapter in found:
        for tried in outcomes_of(chapter):
            print(f"{chapter.stem[:2]} {tried.checker}: {tried.name}: {tried.problem or 'as expected'}")
            bad += bool(tried.problem)
        for checker in sorted(set(checkers(chapter)) - set(read(chapter))):
            print(f"{chapter.stem[:2]} {checker} has no answers")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
