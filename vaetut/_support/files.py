"""Atomic file replacement, JSON, files that end with the SHA-256 of what they hold, and the versions of a result."""

import hashlib
import importlib
import json
import os
import platform
import re
import secrets
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

SIGNED_VERSION = 1
_MARK = b"\nvaetut checkpoint "
_END = len(_MARK) + 4 + 1 + 64 + 1  # the mark, the version in four digits, a space, the hash, a newline


def path_of(value: Any, name: str) -> Path:
    """``value``, a string or a path, as a path with ``~`` expanded."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r} of type {type(value).__name__}")
    return Path(value).expanduser()


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace ``path`` atomically: ``write`` fills a temporary file, which is synced to the disk and then renamed.

    At any moment ``path`` is either the complete new file or what it was before (also: no file). The new file has the
    default permissions. Temporary files of earlier processes that were killed are removed. If ``path`` is a symbolic
    link, the file that it points to is replaced, not the link.
    """
    path = Path(os.path.realpath(path))
    prefix = f".{path.name}.{platform.node() or 'local'}-"
    _remove_leftovers(path.parent, prefix)
    # in the same folder, because a rename is atomic only within one file system
    temporary = path.with_name(f"{prefix}{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):  # such as a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name is on the disk only when its folder has been synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the temporary files of processes of this machine that have ended."""
    if os.name != "posix":  # on Windows os.kill(pid, 0) would end the process
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
    except OSError:  # it is running, under another user
        pass
    return True


def write_signed(path: Path, payload: bytes) -> None:
    """Write ``payload`` and one line with a mark, the format's version and the payload's SHA-256, atomically.

    The hash detects damage. It does not protect against somebody who deliberately writes another valid file.
    """
    atomically(path, lambda temporary: temporary.write_bytes(payload + _end(payload)))


def read_signed(path: str | os.PathLike[str], kind: str = "file") -> bytes:
    """The payload of a file that `write_signed` wrote.

    Args:
        path: the file.
        kind: what the file is called in errors, such as ``"checkpoint"``.

    Raises:
        ValueError: if the file does not end with the hash of its payload. The file is not changed.
    """
    content = Path(path).read_bytes()
    payload, end = content[:-_END], content[-_END:]
    version = end[len(_MARK) : len(_MARK) + 4]
    if not end.startswith(_MARK):
        start = "is incomplete, or was not written by" if content[:2] == b"PK" else "was not written by"
        raise refused(path, f"{start} vaetut.train", kind)
    if version.isdigit() and int(version) != SIGNED_VERSION:
        raise refused(path, f"has format {int(version)}, this vaetut reads format {SIGNED_VERSION}", kind)
    if end != _end(payload):
        raise refused(path, "was damaged or changed: its content does not match the SHA-256 at its end", kind)
    return payload


def is_signed(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends as those of `write_signed` do; the hash is not checked."""
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
    """Write a JSON file atomically; with ``compact`` each innermost list or object is on one line.

    Raises:
        ValueError: if a number is NaN or infinite, which JSON cannot hold.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    if compact:
        text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda part: re.sub(r"\s*\n\s*", " ", part[0]), text)
    atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not valid JSON, or holds something other than an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. It was left as it is") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a JSON object, got {type(content).__name__}. It was left as it is"
        )
    return content


def packaged_json(package: str, name: str) -> Any:
    """The content of a JSON file that comes with ``package``.

    Example:
        >>> "eq-elbo" in packaged_json("vaetut.teaching", "equations.json")
        True
    """
    return json.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


def versions() -> dict[str, str]:
    """The versions that a result depends on, and the kind of machine."""
    packages = {name: importlib.import_module(name).__version__ for name in ("vaetut", "torch", "numpy")}
    return packages | {"python": platform.python_version(), "machine": platform.machine()}
