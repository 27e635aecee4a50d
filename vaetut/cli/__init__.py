"""The command `vaetut` (chapter 11)."""

from vaetut.cli.main import BOOK, REPOSITORY, main

__all__ = ["BOOK", "REPOSITORY", "main"]
