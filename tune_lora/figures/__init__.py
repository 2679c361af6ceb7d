"""Pictures of a study, drawn from its records: `draw` for one, `draw_all` for all.

A study with several objectives has `TRADE_KINDS` beside them, and each of the other kinds once an objective.

A picture is always written. What a study does not hold yet (too few trials, one value only, equal scores) is said in
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import optuna
from matplotlib.figure import Figure

from tune_lora import names
from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.figures._alone import alone
from tune_lora.figures._canvas import Missing, save, sentence, styled
from tune_lora.figures._comparison import comparison
from tune_lora.figures._gains import gains_figure
from tune_lora.figures._importance import importances, param_importances
from tune_lora.figures._parameters import contour, parallel_coordinate, slice_plot
from tune_lora.figures._progress import intermediate_values, optimization_history
from tune_lora.figures._trade import hypervolume_history, pareto_front
from tune_lora.records import StudyRecord, for_objective

__all__ = [
    "ALL_KINDS",
    "KINDS",
    "TRADE_KINDS",
    "Kind",
    "Missing",
    "TradeKind",
    "comparison",
    "draw",
    "draw_all",
    "draw_each",
    "gains_figure",
    "importances",
    "kinds_of",
]  # fmt: skip

Kind = Literal[
    "optimization_history", "param_importances", "parallel_coordinate", "slice", "contour", "intermediate_values"
]
TradeKind = Literal["pareto_front", "hypervolume_history"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TRADE_KINDS: tuple[TradeKind, ...] = get_args(TradeKind)
"""Pictures of several objectives at once."""
ALL_KINDS: tuple[Kind | TradeKind, ...] = (*TRADE_KINDS, *KINDS)

Painter = Callable[[StudyRecord, optuna.Study, "Sequence[str] | None"], Figure]

_PAINTERS: Mapping[Kind | TradeKind, Painter] = {
    "pareto_front": pareto_front,
    "hypervolume_history": hypervolume_history,
    "optimization_history": optimization_history,
    "param_importances": param_importances,
    "parallel_coordinate": parallel_coordinate,
    "slice": slice_plot,
    "contour": contour,
    "intermediate_values": intermediate_values,
}


def draw(
    record: StudyRecord,
    study: optuna.Study,
    kind: Kind | TradeKind,
    path: Path,
    params: Sequence[str] | None = None,
    *,
    objective: int = 0,
) -> Path:
    """Draws one picture as PNG.

    Args:
        record: the study's records.
        study: the same study in Optuna, which knows each parameter's range.
        kind: one of `KINDS`, or with several objectives of `ALL_KINDS`.
        path: where to write; the folder is made where it is missing.
        params: the hyperparameters to show; all, or the most important ones, where None.
        objective: which of several objectives `KINDS` are about, by its place.

    Raises:
        InputError: unknown kind, or hyperparameters that no trial of the study has.
    """
    if kind not in _PAINTERS:
        raise InputError(f"figure {kind!r} is unknown; {nearest(kind, kinds_of(record))}")
    if kind not in kinds_of(record):
        raise InputError(f"figure {kind!r} shows several objectives; study {record.name!r} has one")
    if record.has_several and kind not in TRADE_KINDS:
        record, study = for_objective(record, objective), alone(study, objective)
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
    """Draws every kind of picture into `folder` as ``<kind>.png``, with several objectives also as
    ``<kind>.<objective>.png``.
    """
    return draw_each(record, study, kinds_of(record), folder)


def draw_each(
    record: StudyRecord,
    study: optuna.Study,
    kinds: Iterable[Kind | TradeKind],
    folder: Path,
    params: Sequence[str] | None = None,
) -> list[Path]:
    """Draws some kinds of pictures as `draw_all` does, of the hyperparameters `params`; raises as `draw`."""
    drawn = []
    for kind in kinds:
        if not record.has_several or kind in TRADE_KINDS:
            drawn.append(draw(record, study, kind, folder / f"{kind}.png", params))
            continue
        for index, objective in enumerate(record.objectives):
            path = folder / f"{kind}.{_in_a_file_name(objective.name)}.png"
            drawn.append(draw(record, study, kind, path, params, objective=index))
    return drawn


def named(record: StudyRecord, params: Iterable[str] | None) -> list[str] | None:
    """Hyperparameters by their whole names, given whole or short ones, several in a word where commas stand between.

    Raises:
        InputErrors: a line for each that no trial of the study has, or that several are called.
    """
    words = [word for text in params or () for word in text.split(",") if word]
    return names.all_full(words, record.parameter_names, "hyperparameter") if words else None


def kinds_of(record: StudyRecord) -> tuple[Kind | TradeKind, ...]:
    """The kinds of pictures that a study has."""
    return ALL_KINDS if record.has_several else KINDS


def _in_a_file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
