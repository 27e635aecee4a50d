"""Change the code of each check mechanically, and list what its `verify` lets pass.

    python tools/mutants.py 02

A mutant is the cell that verifies a label with one change: + for -, * for /, another power, a constant that is one
more, two positional arguments exchanged, a minus or a call of log or exp left out, sum for mean and mean for sum. What
raises anything is rejected. A survivor is a question: is the change the same mathematics (a mean that is divided out,
a seed, the size of a grid), or is the check too weak? The wrong versions in tests/book/wrong are chosen by hand.
"""

import argparse
import ast
import copy
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import book_rules as rules
import stored_form
import wrong_versions as harness

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
}
NAMES = {"sum": "mean", "mean": "sum", "min": "max", "max": "min", "argmin": "argmax", "argmax": "argmin"}
DROPPED = {"log", "exp", "sqrt", "square", "abs", "mT"}
# Tolerances and numbers of draws are not part of the equation.
SETTINGS = {"tolerance", "standard_error", "num_samples", "seed", "generator", "dtype", "dim", "keepdim"}
SECONDS = 20.0


def mutants(label: str, source: str) -> list[harness.Variant]:
    """Every change of a cell's code, each named by its line and by what stands there instead."""
    tree = rules.parse(source)
    found = []
    for i, (node, changed) in enumerate(changes(tree)):
        line = getattr(node, "lineno", 0)
        name = f"{i}, line {line}: {ast.unparse(node)} -> {ast.unparse(changed)}"
        found.append(
            harness.Variant(
                label, name, ast.unparse(ast.fix_missing_locations(replaced(tree, node, changed)))
            )
        )
    return found


def changes(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each expression that can be changed, with what stands in its place."""
    passed_over = {id(part) for node in ast.walk(tree) for part in settings(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and id(node) not in passed_over:
            for changed in changed_versions(node):
                yield node, changed


def settings(node: ast.AST) -> Iterator[ast.AST]:
    """What is not to be changed: settings in keywords, the label, text, subscripts."""
    parts: list[ast.AST] = []
    if isinstance(node, ast.Call):
        parts += [keyword for keyword in node.keywords if keyword.arg in SETTINGS]
        called = ast.unparse(node.func)
        if called.endswith(("manual_seed", "print")):
            parts.append(node)
    if isinstance(node, ast.Subscript):
        parts.append(node.slice)
    if isinstance(node, ast.JoinedStr):
        parts.append(node)
    for part in parts:
        yield from ast.walk(part)


def changed_versions(node: ast.expr) -> Iterator[ast.expr]:
    """The expression with one thing changed in it."""
    new = copy.deepcopy(node)
    if isinstance(node, ast.BinOp) and isinstance(new, ast.BinOp) and type(node.op) in OPERATORS:
        new.op = OPERATORS[type(node.op)]()
        yield new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        if not isinstance(node.operand, ast.Constant):  # -1 is an axis more often than a number
            yield node.operand
    elif (
        isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float))
        and not isinstance(node.value, bool)
    ):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(new, ast.Call):
        yield from changed_calls(node, new)


def changed_calls(node: ast.Call, new: ast.Call) -> Iterator[ast.expr]:
    """A call with two arguments exchanged, of another function, or left out."""
    plain = len(node.args) >= 2 and not any(isinstance(argument, ast.Starred) for argument in node.args)
    if plain and ast.unparse(node.func) != "verify":
        new.args[0], new.args[1] = new.args[1], new.args[0]
        yield new
    if isinstance(node.func, ast.Attribute):
        if node.func.attr in NAMES:
            other = copy.deepcopy(node)
            assert isinstance(other.func, ast.Attribute)
            other.func.attr = NAMES[node.func.attr]
            yield other
        if node.func.attr in DROPPED:
            of_torch = ast.unparse(node.func.value) == "torch"
            if of_torch and node.args:
                yield node.args[0]
            elif not of_torch and not node.args:
                yield node.func.value


def replaced(tree: ast.Module, node: ast.expr, changed: ast.expr) -> ast.Module:
    """A copy of the tree with one node exchanged."""
    memo: dict[int, object] = {id(node): changed}
    return copy.deepcopy(tree, memo)


def survivors_of(chapter: Path) -> tuple[int, list[harness.Outcome]]:
    """How many mutants a chapter has, and those that no verify rejects."""
    notebook = stored_form.read(chapter)
    cells = {found.label: found.cell for found in rules.verifications(notebook) if found.label}
    variants = [v for label, i in cells.items() for v in mutants(label, notebook.cells[i].source)]
    outcomes = harness.try_variants(notebook, chapter.parent, variants, SECONDS)
    return len(variants), [outcome for outcome in outcomes if outcome.status == "survived"]


def report(chapter: Path) -> None:
    """Print a chapter's survivors, label by label."""
    command = [sys.executable, __file__, str(chapter), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | harness.ALONE)
    if done.returncode:
        raise SystemExit(f"{chapter.name}: {done.stderr.strip()}")
    count, survivors = json.loads(done.stdout)
    print(f"{chapter.stem}: {len(survivors)} of {count} mutants survive", flush=True)
    for label, n in Counter(label for label, *_ in survivors).items():
        print(f"  {label}: {n}")
        for other, name, *_ in survivors:
            if other == label:
                print(f"    {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "chapter", nargs="*", help="a notebook, or how its name begins, such as 02; default: all"
    )
    parser.add_argument(
        "--json", action="store_true", help="count and survivors of one chapter, for other programs"
    )
    arguments = parser.parse_args()
    found = harness.find_chapters(arguments.chapter)
    if arguments.json:
        (chapter,) = found
        print(json.dumps(survivors_of(chapter.resolve())))
    else:
        for chapter in found:
            report(chapter)
    return 0


if __name__ == "__main__":
    sys.exit(main())
