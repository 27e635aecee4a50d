"""Images to train on, as float tensors ``[N, D]`` with pixels in [0, 1]: chapter 11.

`load` has three data sets. The digits come with scikit-learn and need no network. MNIST and Fashion-MNIST
are downloaded once into a cache folder, or read from a folder of your own, by `vaetut.data.cache`.
"""

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from vaetut._support.validate import any_true, float_tensor, one_of, values_are_checked
from vaetut.data import cache
from vaetut.data.idx import parse_idx


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set of images, gray or in color, split into a training and a test part.

    Attributes:
        train: float32 ``[N, D]``, one flattened image a row, pixels in [0, 1].
        train_labels: int64 ``[N]``; -1 without a label.
        test: float32 ``[N_test, D]``.
        test_labels: int64 ``[N_test]``.
        image_shape: ``(height, width)``, or ``(3, height, width)`` in color, whose product is D:
            ``x.view(-1, *image_shape)`` gives pictures. ``(D,)`` for data that are not images.
        name: the name passed to `load`.
        label_names: the names of the labels 0, 1, ..., if they have names.

    Used in chapter 11.

    Example:
        >>> x = torch.rand(10, 12)
        >>> ImageData(x[:8], torch.zeros(8).long(), x[8:], torch.zeros(2).long(), (3, 4), "mine")
        ImageData('mine': 8 training and 2 test images of 3 x 4 pixels)
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    image_shape: tuple[int, ...]
    name: str
    label_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rows, size = describe_shape(self.image_shape)
        return f"ImageData({self.name!r}: {len(self.train)} training and {len(self.test)} test {rows} {size})"


def describe_shape(image_shape: tuple[int, ...]) -> tuple[str, str]:
    """What the rows of data are, and their size, in words.

    Example:
        >>> describe_shape((28, 28)), describe_shape((3, 28, 28)), describe_shape((5,))
        (('images', 'of 28 x 28 pixels'), ('images', 'of 28 x 28 color pixels'), ('rows', 'of 5 numbers'))
    """
    if len(image_shape) == 1:
        return "rows", f"of {image_shape[0]} numbers"
    color = " color" if len(image_shape) == 3 else ""
    return "images", f"of {image_shape[-2]} x {image_shape[-1]}{color} pixels"


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = True) -> ImageData:
    """Load a data set of images with pixels in [0, 1] (chapter 11).

    * ``"digits"``: 1,497 training and 300 test images of 8 x 8 pixels, included in scikit-learn, without a download.
    * ``"mnist"`` and ``"fashion-mnist"``: 60,000 and 10,000 images of 28 x 28 pixels, in four files each.

    Those files are looked for, compressed (``.gz``) or not, in this order:

    1. ``root``, if given: in ``root/<name>/``, in ``root/MNIST/raw/`` or ``root/FashionMNIST/raw/``, where
       torchvision puts them, and in ``root`` itself; then the other locations are not used;
    2. the folder that the environment variable ``VAETUT_DATA_DIR`` names, in the same places;
    3. the cache folder of your system, ``pooch.os_cache("vaetut")``, into which they are downloaded from the
       first of two mirrors that has them.

    Nothing is written to the first two. A file is used only if its decompressed bytes have the SHA-256 listed in
    `vaetut.data.cache`: a damaged file is an error unless there is a valid one as well, and a file of another data set,
    whose files have the same names, is skipped. A download is verified before it is moved into the cache.

    The digits have no official split. Every sixth image is a test image: this rule needs no random numbers,
    so the split is the same on every machine; and since the images are stored writer by writer, both parts
    contain all 13 writers. It leaves 25 to 33 test images of each digit.

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
    one_of(name, "name", ("digits", *cache.SHA256))
    if name == "digits":
        return _digits()
    content = {file: cache.read(name, file, root, download) for file in cache.SHA256[name]}
    train, train_labels, image_shape = _images_and_labels(name, "train", content)
    test, test_labels, _ = _images_and_labels(name, "t10k", content)
    return ImageData(train, train_labels, test, test_labels, image_shape, name)


def binarize(x: Tensor, how: str = "dynamic", generator: torch.Generator | None = None) -> Tensor:
    """Turn gray pixels in [0, 1] into black and white ones, 0 or 1, of the same shape and dtype.

    * ``"dynamic"``: each pixel is drawn from a Bernoulli distribution whose probability is its gray value.
      Drawn again each time a minibatch is used, this is the usual treatment of MNIST; its mean is the gray image
      (chapter 11, ``eq-vae-gray-pixels``).
    * ``"threshold"``: 1 where the pixel is at least 0.5, else 0.

    Args:
        x: pixels of any shape, float32 or float64, each in [0, 1].
        how: ``"dynamic"`` or ``"threshold"``.
        generator: the random generator, on the device of ``x``; None for torch's global one.

    Returns:
        Zeros and ones, in the shape and dtype of ``x``.

    Raises:
        TypeError: if ``x`` is not a float32 or float64 tensor.
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
    if values_are_checked() and any_true(~((x >= 0) & (x <= 1))):  # in this form NaN is caught too
        low, high = (float(end) for end in x.detach().aminmax())
        raise ValueError(
            f"x must lie in [0, 1], got values from {low:g} to {high:g}; divide 8-bit pixels by 255"
        )
    if how == "threshold":
        return (x >= 0.5).to(x.dtype)
    # Takes a third of the time of torch.bernoulli(x) on a CPU. rand is in [0, 1): a 0 stays 0, a 1 becomes 1.
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return noise.lt_(x)


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
