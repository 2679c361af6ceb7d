"""Sheets of labelled images: a trial's grid, and the untrained base beside the winner. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from trainables import cells
from trainables.cells import Cell
from trainables.lora.files import write_whole

CELL = 160  # pixels; smaller images are enlarged so that a label fits under them
GAP = 10
COLUMNS = 4
LABEL_LINES = 3
_LABEL_SIZE, _HEADING_SIZE = 12, 18
_INK, _PAPER, _FAILED, _NOTHING = (32, 32, 32), (255, 255, 255), (200, 30, 30), (205, 205, 205)


@dataclass(frozen=True)
class Section:
    """Images (N, H, W, 3) under a heading, uint8 or floats in 0..1; NaN is drawn as a grey field.

    `labels`, `failed` and `seeds` are as long as the images, or empty.
    """

    heading: str
    images: np.ndarray
    labels: Sequence[str] = ()
    failed: Sequence[bool] = ()
    seeds: Sequence[int] = ()

    def __post_init__(self) -> None:
        for name in ("labels", "failed", "seeds"):
            given = getattr(self, name)
            if len(given) not in (0, len(self.images)):
                raise ValueError(f"got {len(self.images)} images and {len(given)} {name}; must be as many")


def write_image_grid(
    path: Path,
    images: np.ndarray,
    labels: Sequence[str] = (),
    failed: Sequence[bool] | None = None,
    title: str = "",
    seeds: Sequence[int] = (),
) -> Path:
    """Writes images (N, H, W, 3) as one PNG, four a row, each over its label; failed ones are framed in red.
    `trainables.cells` takes it apart again."""
    return write_comparison(path, [Section(title, images, labels, failed or (), seeds)])


def write_comparison(path: Path, sections: Sequence[Section], columns: int = COLUMNS) -> Path:
    """Writes sections under each other as one PNG: the base and the winner, image by image."""
    sheet, found = _drawn(sections, columns)
    told = PngInfo()
    told.add_text(cells.KEY, cells.as_text(found), zip=True)
    return write_whole(path, lambda scratch: sheet.save(scratch, format="PNG", pnginfo=told))


def image_grid(sections: Sequence[Section], columns: int = COLUMNS) -> Image.Image:
    """Draws sections under each other, `columns` images a row."""
    return _drawn(sections, columns)[0]


def _drawn(sections: Sequence[Section], columns: int) -> tuple[Image.Image, list[Cell]]:
    """The sheet, and where each image is on it."""
    columns = max(1, min(columns, max(len(section.images) for section in sections)))
    strips = [_section(section, columns) for section in sections]
    sheet = Image.new("RGB", (strips[0][0].width, sum(strip.height for strip, _ in strips)), _PAPER)
    top, found = 0, []
    for strip, placed in strips:
        sheet.paste(strip, (0, top))
        found += [replace(cell, box=_lower(cell.box, top)) for cell in placed]
        top += strip.height
    return sheet, found


def _lower(box: tuple[int, int, int, int], by: int) -> tuple[int, int, int, int]:
    return box[0], box[1] + by, box[2], box[3] + by


def _section(section: Section, columns: int) -> tuple[Image.Image, list[Cell]]:
    images = [_picture(image) for image in section.images]
    side = max((image.width for image in images), default=CELL)
    under = (LABEL_LINES * (_LABEL_SIZE + 3) + 4) if section.labels or any(section.failed) else 0
    above = _HEADING_SIZE + 2 * GAP if section.heading else GAP
    rows = -(-len(images) // columns)
    strip = Image.new("RGB", (GAP + columns * (side + GAP), above + rows * (side + under + GAP)), _PAPER)
    pen = ImageDraw.Draw(strip)
    heading = _shortened(section.heading, ImageFont.load_default(_HEADING_SIZE), strip.width - 2 * GAP)
    pen.text((GAP, GAP), heading, fill=_INK, font=ImageFont.load_default(_HEADING_SIZE))
    placed: list[Cell] = []
    for index, image in enumerate(images):
        left = GAP + (index % columns) * (side + GAP)
        top = above + (index // columns) * (side + under + GAP)
        strip.paste(image, (left, top))
        label = section.labels[index] if section.labels else ""
        failed = bool(section.failed and section.failed[index])
        _caption(pen, left, top, side, label, failed=failed)
        seed = int(section.seeds[index]) if section.seeds else None
        placed.append(Cell(label, (left, top, left + image.width, top + image.height), seed, failed))
    return strip, placed


def _caption(pen: ImageDraw.ImageDraw, left: int, top: int, side: int, label: str, *, failed: bool) -> None:
    font = ImageFont.load_default(_LABEL_SIZE)
    if failed:
        pen.rectangle((left - 3, top - 3, left + side + 2, top + side + 2), outline=_FAILED, width=3)
        label = f"FAILED {label}".strip()
    lines = "\n".join(_wrapped(label, font, side))
    pen.multiline_text((left, top + side + 4), lines, fill=_FAILED if failed else _INK, font=font, spacing=3)


def _picture(image: np.ndarray) -> Image.Image:
    if not np.isfinite(image).all():
        side = max(CELL, image.shape[0])
        return Image.new("RGB", (side, side), _NOTHING)
    pixels = image if image.dtype == np.uint8 else (image.clip(0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels)
    side = max(CELL, *picture.size)
    return ImageOps.pad(picture, (side, side), Image.Resampling.LANCZOS, color=_PAPER)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, shortened to the lines that there are."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LABEL_LINES:
        lines = [*lines[: LABEL_LINES - 1], " ".join(lines[LABEL_LINES - 1 :])]
    return [_shortened(line, font, width) for line in lines]


def _shortened(text: str, font: Font, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def without_heading(sheet: Image.Image) -> Image.Image:
    """A sheet of one section without the line that says of whom it is, for whoever must not know."""
    below = sheet.crop((0, _HEADING_SIZE + 2 * GAP, sheet.width, sheet.height))
    bare = Image.new("RGB", (below.width, below.height + GAP), _PAPER)
    bare.paste(below, (0, GAP))
    return bare
