"""Images to train on, as float tensors ``[N, D]`` with pixels in [0, 1]: chapter 11.

`load` knows three data sets. The digits come with scikit-learn and need no network. MNIST and Fashion-MNIST
are downloaded once into a cache folder, or read from a folder of your own; either way a file is used only if
the SHA-256 of its *decompressed* bytes is the one pinned here (compressed bytes differ between mirrors). MNIST's
hashes were computed from the files of LeCun, Cortes and Burges; Fashion-MNIST's labels from those of its authors,
and the hashes of its images are the ones on which several public copies of them agree.
"""

import gzip
import hashlib
import math
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaetut._support.validate import any_true, float_tensor, one_of, values_are_checked

DATA_DIR_VARIABLE = "VAETUT_DATA_DIR"

_MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
}
_SHA256 = {
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
_TIMEOUT = 30  # seconds of silence after which the next mirror is tried


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set of grey images, split into a training and a test part.

    Attributes:
        train: float32 ``[N, D]``, one flattened image a row, pixels in [0, 1].
        train_labels: int64 ``[N]``.
        test: float32 ``[N_test, D]``.
        test_labels: int64 ``[N_test]``.
        image_shape: ``(height, width)``, whose product is D; ``x.view(-1, *image_shape)`` gives pictures.
        name: the name that `load` was given.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    image_shape: tuple[int, int]
    name: str

    def __repr__(self) -> str:
        height, width = self.image_shape
        return (
            f"ImageData({self.name!r}: {len(self.train)} training and {len(self.test)} test images "
            f"of {height} x {width} pixels)"
        )


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = True) -> ImageData:
    """Load a data set of images with pixels in [0, 1].

    * ``"digits"``: 1,497 training and 300 test images of 8 x 8 pixels, inside scikit-learn: nothing to fetch.
    * ``"mnist"`` and ``"fashion-mnist"``: 60,000 and 10,000 images of 28 x 28 pixels, in four files each.

    Those files are looked for, compressed (``.gz``) or not, in this order:

    1. ``root``, where given: in ``root/<name>/`` and in ``root`` itself, and nowhere else;
    2. the folder that the environment variable ``VAETUT_DATA_DIR`` names, in the same two places;
    3. the cache folder of your system, ``pooch.os_cache("vaetut")``, into which they are downloaded from the
       first of two mirrors that has them.

    The first two are only ever read. A file counts only if the SHA-256 of its decompressed bytes is the one
    pinned here. A download is checked as a temporary file, and only then takes its place in the cache.

    The digits have no official split. Every sixth image is a test image: such a rule needs no random numbers,
    so the split is the same on every machine; and as the images are stored writer by writer, counting off
    spreads all 13 writers over both parts. It leaves 25 to 33 test images of each digit.

    Args:
        name: ``"digits"``, ``"mnist"`` or ``"fashion-mnist"``.
        root: a folder that holds the files already.
        download: whether missing files may be fetched. With ``False`` the network is never used.

    Raises:
        ValueError: if the name is unknown, or a file in a local copy is damaged or is another file.
        FileNotFoundError: if ``root`` does not hold the files, or they could not be downloaded. The message
            says which files, with which hash, and where to put them.

    Example:
        >>> data = load("digits")
        >>> data
        ImageData('digits': 1497 training and 300 test images of 8 x 8 pixels)
        >>> data.train.shape, data.train.dtype, float(data.train.max())
        (torch.Size([1497, 64]), torch.float32, 1.0)
    """
    one_of(name, "name", ("digits", *_SHA256))
    if name == "digits":
        return _digits()
    content = {file: _read(name, file, root, download) for file in _SHA256[name]}
    train, train_labels, image_shape = _images_and_labels(name, "train", content)
    test, test_labels, _ = _images_and_labels(name, "t10k", content)
    return ImageData(train, train_labels, test, test_labels, image_shape, name)


def binarize(x: Tensor, how: str = "dynamic", generator: torch.Generator | None = None) -> Tensor:
    """Turn grey pixels in [0, 1] into black and white ones, 0 or 1, of the same shape and dtype.

    * ``"dynamic"``: each pixel is drawn from a Bernoulli distribution whose probability is its grey value.
      Drawn anew each time a batch is used, this is the usual treatment of MNIST; its mean is the grey image.
    * ``"threshold"``: 1 where the pixel is at least 0.5, else 0.

    Args:
        x: pixels of any shape, float32 or float64, each in [0, 1].
        how: ``"dynamic"`` or ``"threshold"``.
        generator: source of the random numbers, on the device of ``x``; torch's global one where it is None.

    Raises:
        TypeError: if ``x`` is no float32 or float64 tensor.
        ValueError: if a pixel is NaN or outside [0, 1], or ``how`` is unknown.

    Example:
        >>> x = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])
        >>> binarize(x, "threshold")
        tensor([0., 0., 1., 1., 1.])
        >>> round(float(binarize(x.expand(100_000, 5), generator=torch.Generator().manual_seed(0)).mean()), 2)
        0.5
    """
    one_of(how, "how", ("dynamic", "threshold"))
    float_tensor(x, "x")
    if values_are_checked() and any_true(~((x >= 0) & (x <= 1))):  # written so that NaN is caught too
        raise ValueError("x must lie in [0, 1] everywhere; divide 8-bit pixels by 255")
    if how == "threshold":
        return (x >= 0.5).to(x.dtype)
    # A third of the time of torch.bernoulli(x) on a CPU. rand is in [0, 1): a 0 stays 0, a 1 becomes 1.
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return noise.lt_(x)


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes, MNIST's format; ``name`` is for the error messages.

    Such a file starts with the bytes 0, 0, 8 (for "unsigned byte") and the number of dimensions, then has
    each dimension as a big-endian 32-bit integer; the values follow in row-major order.

    Raises:
        ValueError: if the header is none, or the number of values is not the one that it announces.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]), "example")
        array([[1, 2, 3],
               [4, 5, 6]], dtype=uint8)
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] == 0:
        raise ValueError(f"{name} must start with the IDX bytes 00 00 08 n, got {content[:4].hex(' ')!r}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{name} ends inside its header, which has {start} bytes; got {len(content)}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"{name} must hold {math.prod(shape)} values {shape}, got {len(content) - start}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _digits() -> ImageData:
    from sklearn.datasets import load_digits  # here, because importing it takes a second

    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32) / 16  # 0 … 16 inked points in each cell of 4 x 4
    y = torch.tensor(labels, dtype=torch.int64)
    is_test = torch.arange(len(x)) % 6 == 0
    return ImageData(x[~is_test], y[~is_test], x[is_test], y[is_test], image_shape=(8, 8), name="digits")


def _images_and_labels(
    name: str, part: str, content: dict[str, bytes]
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    images = parse_idx(content[f"{part}-images-idx3-ubyte"], f"{name}: {part}-images-idx3-ubyte")
    labels = parse_idx(content[f"{part}-labels-idx1-ubyte"], f"{name}: {part}-labels-idx1-ubyte")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"{name}: {part} must be N images and N labels, got shapes {images.shape} and {labels.shape}"
        )
    number, height, width = images.shape
    x = torch.tensor(images.reshape(number, height * width)).to(torch.float32).div_(255)
    return x, torch.tensor(labels).to(torch.int64), (height, width)


def _read(name: str, file: str, root: str | os.PathLike[str] | None, download: bool) -> bytes:
    """The decompressed bytes of one file, verified, from the first place that has it."""
    local = root if root is not None else os.environ.get(DATA_DIR_VARIABLE)
    if local:
        folder, origin = Path(local).expanduser(), "root" if root is not None else DATA_DIR_VARIABLE
        if not folder.is_dir():
            raise FileNotFoundError(f"{origin} must be an existing folder, got {str(folder)!r}")
        for path in _existing(file, folder / name, folder):
            content, problem = _verified(path, name, file)
            if content is None:
                raise ValueError(f"{path} {problem}. It was left as it is: replace it, or change {origin}")
            return content
        if root is not None:
            raise FileNotFoundError(
                f"root must hold {file} or {file}.gz, in {folder / name} or in {folder}; neither is there. "
                f"Without root, {name} is downloaded"
            )

    import pooch

    cache = Path(pooch.os_cache("vaetut")).expanduser() / name
    problems = []
    for path in _existing(file, cache):
        content, problem = _verified(path, name, file)
        if content is not None:
            return content
        problems.append(f"{path} {problem}")
    if download:
        content = _download(name, file, cache, problems)
        if content is not None:
            return content
    else:
        problems.append(f"{file} is not in {cache}, and download=False")
    raise FileNotFoundError(
        f"{name} is not complete, and {file} could not be had:\n"
        + "".join(f"  - {problem}\n" for problem in problems)
        + f"To go on without a network, get these files, compressed (.gz) or not, from {_MIRRORS[name][0]}\n"
        + f"and put them into {cache}, or into any folder that {DATA_DIR_VARIABLE} names:\n"
        + "".join(f"  {f}    SHA-256, decompressed: {digest}\n" for f, digest in _SHA256[name].items())
        + "load('digits') needs no file at all."
    )


def _existing(file: str, *folders: Path) -> list[Path]:
    paths = [folder / variant for folder in folders for variant in (file, f"{file}.gz")]
    return [path for path in paths if path.is_file()]


def _verified(path: Path, name: str, file: str) -> tuple[bytes | None, str]:
    """The decompressed bytes of the file at ``path`` if they are right; else None and what is wrong."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":  # gzip. Names don't tell: some servers and browsers decompress unasked
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        return None, f"is damaged or incomplete ({type(error).__name__}: {error})"
    found, wanted = hashlib.sha256(content).hexdigest(), _SHA256[name][file]
    if found == wanted:
        return content, ""
    for other, digests in _SHA256.items():
        if found in digests.values():
            return None, f"is another file, one of {other}"
    return None, f"is damaged or another file: SHA-256, decompressed, is {found}, it must be {wanted}"


def _download(name: str, file: str, folder: Path, problems: list[str]) -> bytes | None:
    """Fetch a file into ``folder`` from the first mirror that has it whole; else add to ``problems``."""
    import pooch
    from tqdm.auto import tqdm

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f"{file}.", suffix=".part", dir=folder)
        os.close(handle)
    except OSError as error:
        problems.append(f"the cache folder {folder} cannot be written to ({error})")
        return None
    try:
        for url in (f"{mirror}{file}.gz" for mirror in _MIRRORS[name]):
            try:
                # total=1 until pooch sets it: it asks bool(bar), which tqdm answers with total > 0
                with tqdm(total=1, unit="B", unit_scale=True, desc=f"{name}: {file}", leave=False) as bar:
                    pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT)(url, temporary, None)
            except Exception as error:  # whatever it is, from no network to a full disk, try the next mirror
                problems.append(f"{url}: {type(error).__name__}: {error}")
                continue
            content, problem = _verified(Path(temporary), name, file)
            if content is not None:
                os.chmod(temporary, 0o644)  # mkstemp's files are private; a shared cache is for everyone
                os.replace(temporary, folder / f"{file}.gz")
                return content
            problems.append(f"{url}: what it sent {problem}")
        return None
    finally:
        Path(temporary).unlink(missing_ok=True)
