"""A folder of PNG or JPEG images, read with Pillow for `vaetut.data.own`: chapter 11."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vaetut.data.tables import Array, Table

_IMAGES = (".png", ".jpg", ".jpeg")


def read_folder(folder: Path, image_size: tuple[int, int] | None) -> Table:
    """All images below ``folder``, as 8-bit values or, for 16-bit images, as float32 in [0, 1]."""
    from PIL import Image

    everything = sorted(path for path in _visible(folder) if path.is_file())
    paths = [path for path in everything if path.suffix.lower() in _IMAGES]
    if not paths:
        raise ValueError(f"{folder} has no images: no file ends with {', '.join(_IMAGES)}")
    names = sorted({path.relative_to(folder).parts[0] for path in paths if path.parent != folder})
    at_the_top = [path for path in paths if path.parent == folder]
    if names and at_the_top:
        raise ValueError(
            f"{at_the_top[0]} lies beside the folders {', '.join(names[:3])}: put all images into subfolders, "
            "which are their labels, or none"
        )
    modes, sizes = set(), {}
    for path in paths:  # only the headers
        try:
            with Image.open(path) as image:
                modes.add(image.mode)
                sizes[path] = (image.height, image.width)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be read as an image ({error})") from None
    size = image_size or sizes[paths[0]]
    color = bool(modes - {"1", "L", "LA", "I", "I;16", "I;16B", "F"})
    if not image_size:
        other = next((path for path in paths if sizes[path] != size), None)
        if other is not None:
            raise ValueError(
                f"{other} has {sizes[other][0]} x {sizes[other][1]} pixels and {paths[0]} {size[0]} x {size[1]}: "
                "give image_size (--image-size) to resize all of them"
            )
    sixteen = any(mode.startswith("I") for mode in modes) and not color
    x = np.empty((len(paths), *size, *([3] if color else [])), np.float32 if sixteen else np.uint8)
    for i, path in enumerate(paths):
        x[i] = _pixels(path, size, color, sixteen)
    places = {name: i for i, name in enumerate(names)}
    labels = [places[path.relative_to(folder).parts[0]] if names else -1 for path in paths]
    left_out = len(everything) - len(paths)
    remark = f", {left_out} other files ignored" if left_out else ""
    return Table(x, np.asarray(labels, np.int64), tuple(names), remark=remark)


def _visible(folder: Path) -> Iterable[Path]:
    """What is below ``folder``, without hidden files and folders; a folder that cannot be read is an error."""

    def stop(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _pixels(path: Path, size: tuple[int, int], color: bool, sixteen: bool) -> Array:
    """One image, upright, resized to ``size``."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            opened.draft(
                None, (2 * max(size), 2 * max(size))
            )  # a large JPEG is decoded at a lower resolution
            image: Image.Image = ImageOps.exif_transpose(opened) or opened
            if sixteen:
                deep = image.mode.startswith("I")
                image = Image.fromarray(np.asarray(image, np.float32) / (65535 if deep else 255))
            else:
                image = _on_white(image).convert("RGB" if color else "L")
            height, width = size
            if (image.height, image.width) != size:
                image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
            return np.asarray(image).clip(0, 1) if sixteen else np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error})") from None


def _on_white(image: Any) -> Any:
    """An image without transparency. The colors below transparent pixels are arbitrary, often black."""
    from PIL import Image

    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
