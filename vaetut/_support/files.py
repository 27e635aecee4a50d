"""Atomic file replacement, JSON, files that end with the SHA-256 of what they hold, and the versions of a result."""

import hashlib
import importlib
import json
import os
import platform
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIGNED_VERSION = 1
_MARK = b"\nvaetut checkpoint "
_END = len(_MARK) + 4 + 1 + 64 + 1  # the mark, the version in four digits, a space, the hash, a line break


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a new file, and put that in the place of ``path`` once it is complete and on the disk.

    At each moment there is a whole file at ``path``: the new one or the one before it, or none where there was none.
    The new file has the permissions of any other; what an earlier process, killed while it wrote, left behind is
    removed. Behind a symbolic link, the file is replaced and not the link.
    """
    path = Path(os.path.realpath(path))
    prefix = f".{path.name}.{platform.node() or 'local'}-"
    _remove_leftovers(path.parent, prefix)
    # in the same folder: a rename is atomic within a file system alone
    temporary = path.with_name(f"{prefix}{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name is on the disk only when its folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the temporary files of this machine's processes that are no more."""
    if os.name != "posix":  # elsewhere signal 0 is no question but ends the process
        return
    for file in folder.glob("*.part"):
        process = file.name.removeprefix(prefix).partition("-")[0]
        if file.name.startswith(prefix) and process.isdigit() and not _is_running(int(process)):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and is another user's
        pass
    return True


def write_signed(path: Path, payload: bytes) -> None:
    """Write ``payload`` and one line with a mark, the format's version and the payload's SHA-256, atomically.

    The hash finds damage. It is no protection against somebody who wants to write a valid file with other content.
    """
    atomically(path, lambda temporary: temporary.write_bytes(payload + _end(payload)))


def read_signed(path: str | os.PathLike[str], kind: str = "file") -> bytes:
    """The payload of a file of `write_signed`.

    Args:
        path: of the file.
        kind: what the file is called in errors, such as ``"checkpoint"``.

    Raises:
        ValueError: if the file does not end with the hash of all before it. It is left as it is.
    """
    content = Path(path).read_bytes()
    payload, end = content[:-_END], content[-_END:]
    version = end[len(_MARK) : len(_MARK) + 4]
    if not end.startswith(_MARK):
        start = (
            "is cut short, or was written by something else than"
            if content[:2] == b"PK"
            else "was not written by"
        )
        raise refused(path, f"{start} vaetut.train", kind)
    if version.isdigit() and int(version) != SIGNED_VERSION:
        raise refused(path, f"has format {int(version)}, this vaetut reads format {SIGNED_VERSION}", kind)
    if end != _end(payload):
        raise refused(path, "was damaged or changed: its SHA-256 is not the one that it ends with", kind)
    return payload


def is_signed(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends as those of `write_signed` do; its hash may be wrong."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END))
        return file.read().startswith(_MARK)


def refused(path: Any, problem: str, kind: str) -> ValueError:
    """The error for a file that is not what it should be."""
    return ValueError(f"{kind} {path} {problem}; the file is left as it is")


def _end(payload: bytes) -> bytes:
    return _MARK + b"%04d " % SIGNED_VERSION + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def write_json(path: Path, content: Any, *, indent: int = 2, compact: bool = False) -> None:
    """Write a JSON file atomically; with ``compact`` the innermost lists and objects are on one line each.

    Raises:
        ValueError: if a number is NaN or infinite: JSON has neither.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    if compact:
        text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda part: re.sub(r"\s*\n\s*", " ", part[0]), text)
    atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. It was left as it is") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a JSON object, got {type(content).__name__}. It was left as it is"
        )
    return content


def versions() -> dict[str, str]:
    """The versions that a result depends on, and the kind of machine."""
    packages = {name: importlib.import_module(name).__version__ for name in ("vaetut", "torch", "numpy")}
    return packages | {"python": platform.python_version(), "machine": platform.machine()}
