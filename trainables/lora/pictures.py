"""Image files: checked when a dataset is read, and turned into pixels."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trainables.lora.buckets import Size, crop_box
from tune_lora.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_PIXELS = 90_000_000
"""Of one image. A file of a few kilobytes may stand for more than memory holds."""
_LYING = (5, 6, 7, 8)
"""EXIF orientations whose width and height are exchanged."""


def checked_size(path: Path) -> Size:
    """Width and height as the image is seen, once the whole file has been read.

    Raises:
        InputError: there is no such file, it is no image or a damaged one, or too large.
    """
    try:
        with _opened(path) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise InputError(f"{path}: is {width} x {height} pixels; must be at most {MOST_PIXELS:,} in all")
            told = image.format != "PNG" or "exif" in image.info  # else a PNG would be decoded whole in search of it
            lying = told and image.getexif().get(ExifTags.Base.Orientation) in _LYING
            if image.format == "PNG":
                image.verify()  # compares its check sums, which other formats do not have
                _decode(path)
            else:
                image.draft("RGB", (64, 64))  # a JPEG is read to its end, and decoded small
                image.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: cannot be read as an image ({type(error).__name__}); must be PNG, JPEG or WebP"
        ) from None
    return (height, width) if lying else (width, height)


def _decode(path: Path) -> None:
    """Check sums may be right, and rows be missing all the same."""
    with _opened(path) as image:
        image.load()


@contextmanager
def _opened(path: Path) -> Generator[Image.Image, None, None]:
    """The image, without Pillow's remarks on camera data that it cannot read: the picture is what counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def pixels(path: Path, size: int | Size) -> np.ndarray:
    """The image as uint8 (height, width, 3): upright, transparency on white, resized to cover `size` and cut to it
    around its centre.

    `size` is width and height, or the side of a square.
    """
    target = (size, size) if isinstance(size, int) else size
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(canvas, image).convert("RGB")
    box = crop_box(image.size, target)
    return np.asarray(image.resize(target, Image.Resampling.LANCZOS, box=box)).copy()
