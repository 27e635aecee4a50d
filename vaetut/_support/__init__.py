"""Checks of arguments, files and text, used by all other parts of the package; it imports none of them."""
