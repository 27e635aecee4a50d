"""The lock of a run's folder: one process writes to it at a time.

It is a lock on the file ``.lock``, which the operating system releases when the process ends in any way.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"


class InUse(OSError):
    """Another process is writing to the folder."""


def quoted(path: Path) -> str:
    """A path as typed on the command line: in quotation marks if it has spaces."""
    text = str(path)
    return f'"{text}"' if " " in text else text


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make this process the only one that writes to ``folder``, which exists.

    Raises:
        InUse: if another process writes to it.
    """
    path = folder / LOCK
    handle = _acquire(path)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                path.unlink()  # before the release, so that a waiting process makes a new one
            os.close(handle)


def _acquire(path: Path) -> int | None:
    """A handle of the locked file; None if the file system has no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(handle):
                holder = os.read(handle, 200).decode(errors="replace").strip()
                os.close(handle)
                raise InUse(
                    f"{quoted(path.parent)} is in use: {holder or 'another process'} trains there. Wait for it, stop "
                    "it, or choose another --out"
                )
        except InUse:
            raise
        except OSError:
            os.close(handle)
            return None
        try:
            same = os.path.samestat(os.fstat(handle), os.stat(path))
        except FileNotFoundError:
            same = False
        if same:
            with suppress(OSError):  # on a full disk the lock holds, without the text
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return handle
        os.close(handle)  # its holder has removed the file in the meantime


if os.name == "nt":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            os.lseek(handle, 1000, os.SEEK_SET)  # a byte behind the text, so that others can read the text
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
