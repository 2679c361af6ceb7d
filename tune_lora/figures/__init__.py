"""Pictures of a study, drawn from its records: `draw` for one, `draw_all` for all.

A picture is always written. What a study does not hold yet (too few trials, one value only, equal scores) is said in
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import optuna
from matplotlib.figure import Figure

from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.figures._canvas import Missing, save, sentence, styled
from tune_lora.figures._comparison import comparison
from tune_lora.figures._importance import param_importances
from tune_lora.figures._parameters import contour, parallel_coordinate, slice_plot
from tune_lora.figures._progress import intermediate_values, optimization_history
from tune_lora.store import StudyRecord

__all__ = ["KINDS", "Kind", "comparison", "draw", "draw_all"]

Kind = Literal[
    "optimization_history", "param_importances", "parallel_coordinate", "slice", "contour", "intermediate_values"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

Painter = Callable[[StudyRecord, optuna.Study, "Sequence[str] | None"], Figure]

_PAINTERS: Mapping[Kind, Painter] = {
    "optimization_history": optimization_history,
    "param_importances": param_importances,
    "parallel_coordinate": parallel_coordinate,
    "slice": slice_plot,
    "contour": contour,
    "intermediate_values": intermediate_values,
}


def draw(record: StudyRecord, study: optuna.Study, kind: Kind, path: Path, params: Sequence[str] | None = None) -> Path:
    """Draws one picture as PNG.

    Args:
        record: the study's records.
        study: the same study in Optuna, which knows each parameter's range.
        kind: one of `KINDS`.
        path: where to write; the folder is made where it is missing.
        params: the hyperparameters to show; all, or the most important ones, where None.

    Raises:
        InputError: unknown kind, or hyperparameters that no trial of the study has.
    """
    if kind not in _PAINTERS:
        raise InputError(f"figure {kind!r} is unknown; {nearest(kind, KINDS)}")
    if record.parameter_names:
        unknown = [name for name in params or () if name not in record.parameter_names]
        if unknown:
            raise InputErrors(
                f"hyperparameter {name!r} is not in study {record.name!r}; {nearest(name, record.parameter_names)}"
                for name in unknown
            )
    with styled():
        try:
            figure = _PAINTERS[kind](record, study, params)
        except Missing as missing:
            figure = sentence(kind.replace("_", " ").capitalize(), str(missing))
        return save(figure, path)


def draw_all(record: StudyRecord, study: optuna.Study, folder: Path) -> list[Path]:
    """Draws every kind of picture into `folder` as ``<kind>.png``."""
    return [draw(record, study, kind, folder / f"{kind}.png") for kind in KINDS]
