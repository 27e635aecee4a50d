"""The command `vaetut`: which version is installed, and where its book and its source are."""

import argparse
from collections.abc import Sequence

import vaetut

BOOK = "https://vaetut.github.io/vaetut/"
REPOSITORY = "https://github.com/vaetut/vaetut"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, the process's own if None; returns the exit status.

    Example:
        >>> main([])  # doctest: +ELLIPSIS
        vaetut ...
        book    ...
        source  ...
        0
    """
    parser = argparse.ArgumentParser(prog="vaetut", description=__doc__)
    version = f"vaetut {vaetut.__version__}"
    parser.add_argument("--version", action="version", version=version)
    parser.parse_args(arguments)
    print(f"{version}\nbook    {BOOK}\nsource  {REPOSITORY}")
    return 0
