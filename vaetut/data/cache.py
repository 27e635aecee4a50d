"""MNIST's and Fashion-MNIST's files: found in a folder or the cache, downloaded once, and verified.

A file is used only if its *decompressed* bytes have the SHA-256 listed here (compressed bytes differ between mirrors).
The hashes for MNIST were computed from the files of LeCun, Cortes and Burges, those of Fashion-MNIST's labels from its
authors' files; those of its images are the ones on which several public copies agree.
"""

import gzip
import hashlib
import os
import sys
import zlib
from pathlib import Path

from vaetut._support.files import atomically
from vaetut._support.text import is_terminal

DATA_DIR_VARIABLE = "VAETUT_DATA_DIR"

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
}
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # its folder names
_ANOTHER = "is another file"
_TIMEOUT = 30  # seconds without data after which the next mirror is tried


def read(name: str, file: str, root: str | os.PathLike[str] | None, download: bool) -> bytes:
    """The decompressed bytes of one file, verified, from the first location that has it."""
    local = root if root is not None else os.environ.get(DATA_DIR_VARIABLE)
    if local:
        folder, origin = Path(local).expanduser(), "root" if root is not None else DATA_DIR_VARIABLE
        if not folder.is_dir():
            raise FileNotFoundError(f"{origin} must be an existing folder, got {str(folder)!r}")
        folders = (folder / name, folder / _TORCHVISION[name] / "raw", folder)
        content, problems, others = _first_good(name, file, folders)
        if content is not None:
            return content
        if problems:
            raise ValueError(
                f"{'; '.join(problems)}. The files were not changed: replace them, or change {origin}"
            )
        if root is not None:
            there = f"; {'; '.join(others)}" if others else ""
            raise FileNotFoundError(
                f"root must hold {file} or {file}.gz of {name}, in {', '.join(map(str, folders[:-1]))} or in "
                f"{folder}; none was found{there}. Without root, {name} is downloaded"
            )

    import pooch

    cache = Path(pooch.os_cache("vaetut")).expanduser() / name
    content, problems, others = _first_good(name, file, (cache,))
    if content is not None:
        return content
    problems += others
    if download:
        content = _download(name, file, cache, problems)
        if content is not None:
            return content
    else:
        problems.append(f"{file} is not in {cache}, and download=False")
    raise FileNotFoundError(
        f"{name} is not complete, and {file} could not be found or downloaded:\n"
        + "".join(f"  - {problem}\n" for problem in problems)
        + f"To continue without a network, get these files, compressed (.gz) or not, from {MIRRORS[name][0]}\n"
        + f"and put them into {cache}, or into a folder named by {DATA_DIR_VARIABLE}:\n"
        + "".join(f"  {f}    SHA-256, decompressed: {digest}\n" for f, digest in SHA256[name].items())
        + "load('digits') needs no download."
    )


def _existing(file: str, *folders: Path) -> list[Path]:
    paths = [folder / variant for folder in folders for variant in (file, f"{file}.gz")]
    return [path for path in paths if path.is_file()]


def _first_good(name: str, file: str, folders: tuple[Path, ...]) -> tuple[bytes | None, list[str], list[str]]:
    """The first valid file of this name; or the problem of each file, and the files of another data set."""
    problems: list[str] = []
    others: list[str] = []
    for path in _existing(file, *folders):
        content, problem = _verified(path, name, file)
        if content is not None:
            return content, [], []
        (others if problem.startswith(_ANOTHER) else problems).append(f"{path} {problem}")
    return None, problems, others


def _verified(path: Path, name: str, file: str) -> tuple[bytes | None, str]:
    """The decompressed bytes of the file at ``path`` if they are valid; otherwise None and the problem."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"
    try:
        # gzip; the name is no evidence, since some servers and browsers decompress the file
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        return None, f"is damaged or incomplete ({type(error).__name__}: {error})"
    found, wanted = hashlib.sha256(content).hexdigest(), SHA256[name][file]
    if found == wanted:
        return content, ""
    for other, digests in SHA256.items():
        if found in digests.values():
            return None, f"{_ANOTHER}, one of {other}"
    return None, f"is damaged or another file: its decompressed SHA-256 is {found}, it must be {wanted}"


def _download(name: str, file: str, folder: Path, problems: list[str]) -> bytes | None:
    """Fetch a file into ``folder`` from the first mirror that has a valid copy; otherwise add to ``problems``."""
    fetched: list[bytes] = []

    def fetch(temporary: Path) -> None:
        for url in (f"{mirror}{file}.gz" for mirror in MIRRORS[name]):
            try:
                _fetch(url, temporary, f"{name}: {file}")
            except Exception as error:  # for any error, from no network to a full disk, try the next mirror
                problems.append(f"{url}: {type(error).__name__}: {error}")
                continue
            content, problem = _verified(temporary, name, file)
            if content is not None:
                fetched.append(content)
                return
            problems.append(f"{url}: the file that it sent {problem}")
        raise _NotFetched

    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomically(folder / f"{file}.gz", fetch)
    except _NotFetched:
        return None
    except OSError as error:
        problems.append(f"the cache folder {folder} cannot be written to ({error})")
        return None
    return fetched[0]


class _NotFetched(Exception):
    """No mirror has the file."""


def _fetch(url: str, path: Path, title: str) -> None:
    """Download a file, with a progress bar if the output is a terminal."""
    import pooch
    from tqdm.auto import tqdm

    if not is_terminal(sys.stderr):
        pooch.HTTPDownloader(timeout=_TIMEOUT)(url, str(path), None)
        return
    # total=1 until pooch sets it: it asks bool(bar), which tqdm answers with total > 0
    with tqdm(total=1, unit="B", unit_scale=True, desc=title, leave=False) as bar:
        pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT)(url, str(path), None)
