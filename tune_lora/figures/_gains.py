"""What each phase and each change of a study of phases gained: a mean with its interval, and what was promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from tune_lora.figures._canvas import BLUE, GREY, INK, ORANGE, panels, save, sentence, short, styled
from tune_lora.gains import Interval, PhasesRecord


@dataclass(frozen=True)
class _Row:
    label: str
    measured: Interval | None
    is_phase: bool
    claimed: tuple[float, float] | None = None


def gains_figure(record: PhasesRecord, path: Path) -> Path:
    """Draws the gains of all finished phases as PNG; better is to the right."""
    rows = _rows(record)
    with styled():
        if not any(row.measured for row in rows):
            return save(sentence("Measured gains", "No phase has been measured yet."), path)
        figure, (axes,) = panels(9.0, 1.1 + 0.34 * len(rows))
        for place, row in enumerate(rows):
            _draw(axes, place, row)
        axes.axvline(0, color=INK, lw=1)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.is_phase else "normal")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"gain in {record.metric} over the phase's start, better is to the right")
        axes.set_title(f"Measured gains: mean of {record.seeds} seeds, {record.confidence:.0%} interval")
        if any(row.claimed for row in rows):
            axes.plot([], [], color=GREY, lw=9, alpha=0.6, label="promised")
            axes.legend(loc="best")
        return save(figure, path)


def _rows(record: PhasesRecord) -> Sequence[_Row]:
    rows = []
    for phase in record.phases:
        adopted = "" if phase.is_best_of_search else " (not adopted)"
        rows.append(_Row(f"phase {phase.name}: the search's best{adopted}", phase.whole, True))
        rows += [
            _Row(short(", ".join(f"{n} {v}" for n, v in _plain(gain.change)), 52), gain.measured, False, gain.claimed)
            for gain in phase.singles
        ]
    if record.whole is not None:
        rows.append(_Row("all phases, from start to end", record.whole, True))
    return rows


def _plain(change: object) -> Sequence[tuple[str, str]]:
    assert isinstance(change, dict)  # as a change is made
    return [(name, f"{value:.3g}" if isinstance(value, float) else str(value)) for name, value in change.items()]


def _draw(axes: Axes, place: int, row: _Row) -> None:
    if row.claimed is not None:
        axes.plot(row.claimed, [place, place], color=GREY, lw=9, alpha=0.6, solid_capstyle="butt", zorder=1)
    if row.measured is None:
        axes.text(0, place, " not measured", va="center", fontsize=8.5)
        return
    colour = ORANGE if row.is_phase else BLUE
    if row.measured.low is not None and row.measured.high is not None:
        axes.plot([row.measured.low, row.measured.high], [place, place], color=colour, lw=2.2, zorder=2)
    axes.plot([row.measured.mean], [place], "o", color=colour, ms=7 if row.is_phase else 5, zorder=3)
