"""What all pictures share: paper, colours, numbers, and saving."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_lora import atomic

BLUE, ORANGE, GREY, RED, INK = "#2a6f97", "#e4741a", "#b3b7bd", "#c0392b", "#2b2f36"
DPI = 120
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": "#8a9099",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8eaed",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "text.parse_math": False,  # a dollar sign in a user's name is a dollar sign
}


class Missing(Exception):
    """What a study lacks for a picture, in a sentence for its reader."""


@contextmanager
def styled() -> Iterator[None]:
    """Draws in the house's style while it is open."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to alarm anybody.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def panels(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure (inches) with a grid of panels, row by row. Made without pyplot, which keeps every figure for ever."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def sentence(title: str, text: str) -> Figure:
    """A picture that says in words what is missing."""
    figure, (axes,) = panels(7.0, 2.4)
    axes.set_axis_off()
    axes.set_title(title)
    axes.text(0.5, 0.5, "\n".join(textwrap.wrap(text, 78)), ha="center", va="center", transform=axes.transAxes)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG, all or nothing; the same figure gives the same bytes."""
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path


def short(text: object, width: int = 24) -> str:
    """A label that fits beside its axis."""
    return textwrap.shorten(str(text), width, placeholder="…") if " " in str(text) else _clipped(str(text), width)


def number(value: float) -> str:
    """A tick label: three significant digits, ``6e-5`` rather than ``6e-05``."""
    text = f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.2e}"
    mantissa, mark, exponent = text.partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if mark else text


def robust_limits(values: Sequence[float]) -> tuple[float, float] | None:
    """Limits of an axis that hold all values but those three interquartile ranges out; None without a spread."""
    if not values:
        return None
    low, high = np.percentile(values, [25, 75])
    reach = 3 * (high - low)
    inside = [value for value in values if low - reach <= value <= high + reach]
    if (
        np.ptp(inside) <= 1e-12 * np.abs(values).max()
    ):  # most scores are the same one; the others are all there is to see
        inside = list(values)
    margin = 0.06 * (max(inside) - min(inside))
    return (min(inside) - margin, max(inside) + margin) if margin > 0 else None


def beyond(values: Sequence[float], limits: tuple[float, float] | None) -> str:
    """A note on how many values lie outside an axis; empty for none. No score is dropped in silence."""
    n = sum(not limits[0] <= value <= limits[1] for value in values) if limits else 0
    return f" ({n} beyond the axis, drawn on its edge)" if n else ""


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
