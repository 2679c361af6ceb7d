"""Pictures as cameras, exporters and attackers write them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from benchmarks.fuzz.mutation import Draw, spoilt
from benchmarks.fuzz.samples import picture

MODES: Mapping[str, tuple[str, ...]] = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "F", "I;16", "LAB"),
    "ICO": ("RGBA",),
    "PPM": ("1", "L", "RGB"),
    "TGA": ("L", "RGB", "RGBA"),
}
"""What can be written, by format."""
NAMES = ("3.png", "3.jpg", "3.jpeg", "3.webp", "3.PNG", "3.Jpg")
BEGINNINGS = (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>", b"%PDF-1.4", b"RIFF\0\0\0\0WEBP", b"II*\0")
SIZES = ((1, 1), (1, 200), (300, 1), (24, 24), (17, 31), (8, 64))


def _made(mode: str, kind: str, size: tuple[int, int], **more: Any) -> bytes:
    held = io.BytesIO()
    Image.open(io.BytesIO(picture(9, size))).convert("L" if mode in ("I;16", "F", "I") else "RGB").convert(mode).save(
        held, kind, **more
    )
    return held.getvalue()


@st.composite
def ordinary(draw: Draw) -> bytes:
    """A whole picture of any format and mode."""
    kind = draw(st.sampled_from(sorted(MODES)))
    mode, size = draw(st.sampled_from(MODES[kind])), draw(st.sampled_from(SIZES))
    try:
        return _made(mode, kind, size)
    except (OSError, ValueError):  # a mode that this library reads and does not write
        return picture(9, size)


@st.composite
def turned(draw: Draw) -> bytes:
    """A JPEG whose EXIF says how it was held, or something that is no orientation."""
    exif = Image.Exif()
    exif[0x0112] = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535]))
    made = _made("RGB", draw(st.sampled_from(["JPEG", "PNG", "WEBP"])), draw(st.sampled_from(SIZES)), exif=exif)
    return draw(st.one_of(st.just(made), spoilt(made)))


@st.composite
def animated(draw: Draw) -> bytes:
    """Several pictures in one file."""
    frames = [Image.open(io.BytesIO(picture(n))) for n in range(3)]
    held = io.BytesIO()
    frames[0].save(held, draw(st.sampled_from(["GIF", "WEBP", "PNG", "TIFF"])), save_all=True, append_images=frames[1:])
    made = held.getvalue()
    return draw(st.one_of(st.just(made), spoilt(made)))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, rows: bytes | None = None, depth: int = 8, colour: int = 0, *more: bytes) -> bytes:
    """A PNG of that size with whatever rows (None: all of them, black), and chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(bytes((width + 1) * height) if rows is None else rows, 9)
    chunks = [_chunk(b"IHDR", header), *more, _chunk(b"IDAT", packed), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@st.composite
def oversized(draw: Draw) -> bytes:
    """A PNG of a few kilobytes that says it is large; its rows are there, or some of them, or none."""
    side = st.sampled_from([0, 1, 2, 4000, 9000, 20_000, 65_535, 2**31 - 1, 2**32 - 1])
    width, height = draw(side), draw(side)
    depth, colour = draw(st.sampled_from([(1, 0), (8, 0), (16, 2), (8, 6), (8, 3), (3, 9)]))
    rows = bytes(min(width * height, draw(st.sampled_from([0, 10, 30_000_000]))))
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(draw(st.sampled_from([0, 70_000_000])))))
    return png(width, height, rows, depth, colour, text)


@st.composite
def large_jpeg(draw: Draw) -> bytes:
    """A JPEG whose frame says another size than it has."""
    made = bytearray(_made("RGB", "JPEG", (24, 24)))
    at = made.index(b"\xff\xc0") + 5
    made[at : at + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\x10\xff\xff", b"\x20\0\x20\0"]))
    return bytes(made)


STRATEGIES: tuple[Callable[[], st.SearchStrategy[bytes]], ...] = (
    ordinary,
    turned,
    animated,
    oversized,
    large_jpeg,
    lambda: ordinary().flatmap(spoilt),
    lambda: st.sampled_from(BEGINNINGS),
    lambda: st.binary(max_size=200),
)


def any_picture() -> st.SearchStrategy[bytes]:
    """A file that should be a picture."""
    return st.one_of([make() for make in STRATEGIES])
