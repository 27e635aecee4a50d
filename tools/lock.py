"""Write requirements.lock: every package that vaetut and its extras need, as installed in this environment.

To move to newer versions: install them into .venv, run `make lock`, then `make test`. Pins of packages that only
other platforms or Python versions need are kept from the old file.
"""

import pathlib
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = """\
# Exact versions of everything that the book and its tests need, for Python 3.11 to 3.13.
# Written by `make lock` from the environment in .venv; `make book` and `make test` install it.
"""


def main() -> None:
    pins, elsewhere = closure()
    old = read_pins(LOCK.read_text()) if LOCK.exists() else {}
    kept = {name: old[name] for name in elsewhere if name in old and name not in pins}
    lines = [f"{name}=={version}" for name, version in pins.items()]
    lines += [f"{name}=={version} ; {elsewhere[name]}" for name, version in kept.items()]
    LOCK.write_text(HEADER + "\n".join(sorted(lines, key=str.lower)) + "\n")
    print(f"{LOCK.name}: {len(lines)} packages")
    for name in sorted(set(elsewhere) - set(kept) - set(pins)):
        print(f"without a pin, since it is not installed here: {name} ; {elsewhere[name]}")


def roots() -> Iterator[Requirement]:
    """What pyproject.toml asks for: the package, all extras and the build backend."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    groups = [project["dependencies"], pyproject["build-system"]["requires"]]
    for group in [*groups, *project["optional-dependencies"].values()]:
        yield from map(Requirement, group)


def closure() -> tuple[dict[str, str], dict[str, str]]:
    """Versions of everything needed here, and the markers of what is needed on other platforms only."""
    pins: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(requirement, extra) for requirement in roots() for extra in ("", *requirement.extras)]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or belongs_to_cuda(name):
            continue
        seen.add((name, extra))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement} is not installed in this environment") from None
        pins[name] = found.version.partition("+")[0]  # 2.13.0+cpu is a build of 2.13.0
        for text in found.requires or []:
            child = Requirement(text)
            if child.marker is None or child.marker.evaluate({"extra": extra}):
                todo += [(child, part) for part in ("", *child.extras)]
            elif belongs_to_cuda(canonicalize_name(child.name)):
                continue
            elif "extra" not in str(child.marker) and "python_version <" not in str(child.marker):
                elsewhere[canonicalize_name(child.name)] = str(child.marker)
    return pins, elsewhere


def belongs_to_cuda(name: str) -> bool:
    """Whether only torch's CUDA build needs the package. The lock holds for every build, so it pins none of these.

    torch itself asks for exact versions of nearly all of them.
    """
    return bool(re.match(r"(nvidia|cuda)-|triton$", name))


def read_pins(text: str) -> dict[str, str]:
    """The name and version of each line of a lock file."""
    return {canonicalize_name(n): v for n, v in re.findall(r"^([\w.-]+)==([\w.!-]+)", text, re.M)}


if __name__ == "__main__":
    main()
