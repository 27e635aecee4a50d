"""The command `vaetut`."""

from vaetut.cli.main import BOOK, REPOSITORY, main

__all__ = ["BOOK", "REPOSITORY", "main"]
