"""A study goes on only as what it was: with the settings that define it, and with the data it began with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna

from cluster.package import within_package
from search_spaces.space import Space
from trainables import fingerprints
from trainables.protocol import Fingerprinted
from tune_lora import store
from tune_lora.build import Plan
from tune_lora.errors import InputError
from tune_lora.spec import StudySpec, differences

DATA_PLACES = (
    "dataset.path",
    "text.path",
    "text.validation",
    "data.path",
    "data.validation",
    "transfer.stage1.path",
    "transfer.stage2.path",
    "transfer.stage2.labels.path",
)
"""Where a study file names data. Where their content is known they may lie anywhere."""


def settle(study: optuna.Study, ready: Plan) -> None:
    """Notes what the study is, unless that is noted already and differs.

    Raises:
        InputError: other settings or other data than it began with.
    """
    spec, trainer = ready.spec, ready.trainer
    before, now = study.user_attrs.get(store.SPEC), spec.as_mapping()
    data = trainer.fingerprint() if isinstance(trainer, Fingerprinted) else None
    # Of a study that was made before data were looked at, or has nothing yet that rests on them, these are the data.
    known = study.user_attrs.get(store.DATA) if _has_begun(study) else None
    moving = DATA_PLACES if data is not None and known is not None else ()
    if before is not None and (changed := _without(moving, _differing(before, now))):
        raise InputError(
            f"study {spec.name!r} in {spec.folder} was made with other settings ({'; '.join(changed)}); "
            "give the new study another name, or take the settings back"
        )
    if data is not None and known is not None and not fingerprints.same(known, data):
        raise InputError(
            f"study {spec.name!r} in {spec.folder}: the data has changed since the study began: "
            f"{', '.join(data_paths(spec))}; give the new study another name, or take the change back"
        )
    study.set_user_attr(store.SPEC, now)
    if data is not None:
        study.set_user_attr(store.DATA, data)


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ. A space that is a file here and was sent whole to a cluster, or the other way round, is
    compared by what is in it."""
    return differences(_packed(_with_space_of(before, now)), _packed(_with_space_of(now, before)))


def _with_space_of(settings: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    space = settings.get("space")
    if not isinstance(space, str) or not isinstance(other.get("space"), Mapping) or not Path(space).is_file():
        return settings
    try:
        return {**settings, "space": dict(Space.load(space).source)}
    except InputError:  # it was changed since, and is no space now: what differs is said by its path
        return settings


def data_paths(spec: StudySpec) -> list[str]:
    """The files and folders that a study file names as its data."""
    found, mapping = [], spec.as_mapping()
    for place in DATA_PLACES:
        inner = mapping
        for part in place.split("."):
            inner = inner.get(part) or {}
        found += [str(inner)] if inner else []
    return found


def _packed(value: Any) -> Any:
    """Settings with paths in an unpacked package as they are inside of it: each submission unpacks into another
    folder."""
    if isinstance(value, Mapping):
        return {name: _packed(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(inner) for inner in value]
    return within_package(value) if isinstance(value, str) else value


def _has_begun(study: optuna.Study) -> bool:
    return store.BASELINE in study.user_attrs or bool(study.get_trials(deepcopy=False))


def _without(places: Iterable[str], changed: Iterable[str]) -> list[str]:
    """The lines of `differences` that are of other places."""
    return [line for line in changed if line.partition(": ")[0] not in places]
