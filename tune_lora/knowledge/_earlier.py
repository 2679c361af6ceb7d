"""Trials of an earlier study in terms of this one's space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from search_spaces.expressions import Expression, ExpressionError, parse, unknown_names
from search_spaces.space import UNSET, Space
from tune_lora import store
from tune_lora.errors import InputError, nearest
from tune_lora.knowledge._points import CARRIED, LeftOut, Point, Reference, Scale, Source
from tune_lora.knowledge._translate import CannotCarry, Translation, translate
from tune_lora.search_spec import WarmStartSpec
from tune_lora.spec import StudySpec, differences
from tune_lora.storage_url import opened, written
from tune_lora.store import StudyRecord, TrialRecord

REFERENCES = 5
"""How many of the best trials are trained again, unless the study file says."""
COMPARABLE = ("objective", "base", "dataset", "evaluation", "trainer")
"""Where two studies agree in these, a score of one means the same in the other."""


def open_earlier(asked: WarmStartSpec, spec: StudySpec) -> StudyRecord:
    """The earlier study, read.

    Raises:
        InputError: there is none, it is this study itself, or it has several objectives.
    """
    if "://" in asked.study:
        study = _in_storage(asked.study, asked.name)
    else:
        study = store.load_study(Path(asked.study).expanduser())
    if len(study.directions) != 1:
        raise InputError(f"study {study.study_name!r} has {len(study.directions)} objectives; must have one")
    is_same_place = asked.study == spec.storage_url or _is_within(Path(asked.study), spec.folder)
    if is_same_place and study.study_name == spec.name:
        raise InputError(
            f"{written(asked.study)} is this study itself; must be an earlier one (this one is continued by `run`)"
        )
    return store.read(study)


def _in_storage(url: str, name: str | None) -> optuna.Study:
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.is_file():  # opening it would make one
        raise InputError(f"storage {url}: {path} does not exist; must be the storage of an earlier study")
    held = store.study_names(url)
    if name is None and len(held) != 1:
        raise InputError(f"storage {written(url)}: holds {len(held)} studies; name one: {_listed(held)}")
    chosen = name or held[0]
    if chosen not in held:
        raise InputError(f"study {chosen!r} not found in {written(url)}; available: {_listed(held)}")
    return optuna.load_study(study_name=chosen, storage=opened(url))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve() in (folder.resolve(), (folder / "study.db").resolve())


def expressions_of(
    asked: WarmStartSpec, record: StudyRecord, space: Space, where: str, mistakes: list[str]
) -> dict[str, Expression]:
    """The map, parsed: parameters of this space out of names that the earlier trials have."""
    known = {name for trial in record.trials for name in trial.config}
    found: dict[str, Expression] = {}
    for name, text in asked.map.items():
        place = f"{where}.map.{name}"
        if name not in space.parameters:
            mistakes.append(f"{place}: unknown parameter {name!r}; {nearest(name, space.parameters)}")
            continue
        try:
            expression = parse(text)
        except ExpressionError as error:
            mistakes.append(f"{place}: {error}")
            continue
        unknown = unknown_names(expression, known) if known else []
        mistakes.extend(f"{place}: {line}" for line in unknown)
        found[name] = expression
    return found


def scale_of(asked: WarmStartSpec, record: StudyRecord, spec: StudySpec) -> Scale:
    """How the earlier values are told.

    Raises:
        InputError: as they are, but the earlier study's better is this one's worse.
    """
    turned = record.direction != spec.objective.pruned_on.direction
    if asked.values is None:
        return "ranks" if turned or not _is_comparable(record, spec) else "as_is"
    if asked.values == "as_is" and turned:
        raise InputError(f"got as_is, but study {record.name!r} is to {record.direction}; must be ranks")
    return asked.values


def _is_comparable(record: StudyRecord, spec: StudySpec) -> bool:
    if not record.spec:
        return False
    changed = differences(record.spec, spec.as_mapping())
    return not any(line.partition(":")[0].partition(".")[0] in COMPARABLE for line in changed)


class Earlier:
    """The completed trials of an earlier study, best first, in terms of `space`. `label` names it in this study."""

    def __init__(
        self, record: StudyRecord, label: str, space: Space, expressions: Mapping[str, Expression], *, n: int | None
    ) -> None:
        self._record, self._label, self._space, self._expressions = record, label, space, expressions
        self._n, self._defaults = n, _defaults(record)
        self.left_out: list[LeftOut] = []

    def source(self, values: Scale) -> Source:
        """Their results, as far as they can be carried."""
        points = [
            Point(self._provenance(trial), made.params, trial.value, made.notes)
            for trial, made in self._translated(move=False)
        ]
        return Source(self._label, tuple(points), tuple(self.left_out), values, self._record.direction)

    def references(self) -> list[Reference]:
        """The best of them, to be trained anew; two that have become the same are one."""
        found: list[Reference] = []
        for trial, made in self._translated(move=True):
            if any(dict(other.params) == dict(made.params) for other in found):
                self._leave(trial, "the same as a better one", "after its values were moved into this space")
            else:
                found.append(Reference(self._provenance(trial), made.params, made.notes))
        return found

    def _translated(self, *, move: bool) -> list[tuple[TrialRecord, Translation]]:
        found = []
        for trial in self._record.ranked()[: self._n]:
            if not math.isfinite(trial.value or 0.0):
                self._leave(trial, "value is not finite", f"it is {trial.value}")
                continue
            try:
                made = translate(
                    trial.config, self._space, expressions=self._expressions, defaults=self._defaults, move=move
                )
            except CannotCarry as reason:
                self._leave(trial, reason.reason, reason.detail)
            else:
                found.append((trial, made))
        return found

    def _leave(self, trial: TrialRecord, reason: str, detail: str) -> None:
        self.left_out.append(LeftOut(self._provenance(trial), reason, detail))

    def _provenance(self, trial: TrialRecord) -> str:
        return f"{CARRIED}{self._label}#{trial.number}"


def _defaults(record: StudyRecord) -> dict[str, Any]:
    """What the earlier space takes where nothing is said."""
    described = record.spec.get("space")
    try:
        space = Space.load(described) if described else None
    except InputError:  # its file has moved since
        space = None
    parameters = space.parameters if space else {}
    return {name: one.default for name, one in parameters.items() if one.default is not UNSET}
