"""``--set key=value``: what a key means, and the study or configuration with the value in it.

A key is a setting of the trainer or the space (``optimizer.lr``), a place in the study file (``search.seed``), or the
last part of one where that is unique (``lr``). ``fixed.`` and ``study.`` before it say which of the two is meant.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from search_spaces import documents
from search_spaces.space import Space
from trainables.rules import is_known
from tune_lora import build
from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.names import matching
from tune_lora.places import places_of, put
from tune_lora.spec import StudySpec, from_mapping, with_paths_from
from tune_lora.trainers import kind_of

OPTION = "--set"
FIXED, STUDY = "fixed.", "study."
_SHAPES = ("trainer", "trainable", "space", "preset")
"""Places that decide which settings there are; they are looked at before the others."""


@dataclass(frozen=True)
class Meaning:
    """What a key stands for: a setting of the configuration, or a place in the study file."""

    kind: Literal["setting", "place"]
    name: str


@dataclass(frozen=True)
class Known:
    """The names that a key may mean. `tried` are the space's own, which come before what else the trainer knows
    (`rules`); `places` are those of the study file, and `open_places` hold names of the user's own."""

    tried: frozenset[str]
    rules: Mapping[str, Any]
    places: frozenset[str]
    open_places: frozenset[str]

    @property
    def settings(self) -> list[str]:
        """Settings by name, without the patterns."""
        return sorted({*self.tried, *(name for name in self.rules if not name.endswith("*"))})

    def is_setting(self, key: str) -> bool:
        """Whether a whole name is a setting."""
        return key in self.tried or is_known(key, self.rules)

    def is_place(self, key: str) -> bool:
        """Whether a whole name is a place in the study file."""
        return key in self.places or any(key.startswith(f"{place}.") for place in self.open_places)


def parse(texts: Iterable[str]) -> dict[str, Any]:
    """``key=value`` each, the value as YAML has it (``1e-4`` is a number).

    Raises:
        InputErrors: one has no ``=``, no key, a value that is not YAML, or a key stands twice.
    """
    found: dict[str, Any] = {}
    mistakes = []
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            mistakes.append(f"{OPTION}: got {text!r}; must be a name, = and a value, such as optimizer.lr=0.01")
        elif key in found:
            mistakes.append(f"{OPTION} {key}: given twice; must be given once")
        else:
            try:
                found[key] = documents.with_numbers(documents.parse(value)[0])
            except yaml.YAMLError:
                mistakes.append(f"{OPTION} {key}: got {value!r}; must be a value as YAML has it")
    if mistakes:
        raise InputErrors(mistakes)
    return found


def meaning(key: str, known: Known) -> Meaning:
    """What a key stands for.

    Raises:
        InputError: nothing is called so, several things are, or it is a setting and a place at once.
    """
    if key.startswith(STUDY):
        return Meaning("place", _only(key, key.removeprefix(STUDY), known.places, known.is_place))
    if key.startswith(FIXED):
        return _setting(key, key.removeprefix(FIXED), known) or _none(key, known.settings)
    if known.is_setting(key) and known.is_place(key):
        raise InputError(
            f"{OPTION} {key}: is a setting of the trainer and a place in the study file; "
            f"must be {FIXED}{key} or {STUDY}{key}"
        )
    if known.is_place(key):
        return Meaning("place", key)
    if (setting := _setting(key, key, known)) is not None:
        return setting
    return Meaning("place", _only(key, key, {*known.places, *known.settings}, known.is_place))


def _setting(key: str, name: str, known: Known) -> Meaning | None:
    """The setting of that name or short name. What the space tries comes first, then what the trainer knows."""
    if name in known.tried:
        return Meaning("setting", name)
    for names in (known.tried, known.settings):
        found = matching(name, names)
        if len(found) > 1:
            raise _ambiguous(key, found)
        if found:
            return Meaning("setting", found[0])
    return Meaning("setting", name) if is_known(name, known.rules) else None


def _only(key: str, name: str, names: Collection[str], holds: Any) -> str:
    if holds(name):
        return name
    found = matching(name, names)
    if len(found) > 1:
        raise _ambiguous(key, found)
    return found[0] if found else _none(key, names)


def _ambiguous(key: str, found: Iterable[str]) -> InputError:
    return InputError(f"{OPTION} {key}: may be one of {', '.join(found)}; must be a whole name")


def _none(key: str, names: Collection[str]) -> Any:
    hint = nearest(key, names)
    # A study file has a hundred places: the nearest is a help, the list is not.
    close = hint.partition(" (available")[0] if "did you mean" in hint else "must be a setting or a place in the file"
    raise InputError(f"{OPTION} {key}: unknown; {close if len(names) > 40 else hint}")


def known_of(spec: StudySpec, config: Iterable[str] = ()) -> Known:
    """The names that a study knows; `config` are those of a configuration that is trained."""
    space = build.space_of(spec)
    tried = {*space.parameters, *space.derived, *space.fixed, *spec.fixed, *config}
    places, open_places = places_of(StudySpec)
    return Known(frozenset(tried), kind_of(spec).rules or {}, places, open_places)


def in_study(spec: StudySpec, given: Mapping[str, Any]) -> StudySpec:
    """The study with values in place: settings are fixed for all trials, places of the file are replaced.

    Raises:
        InputErrors: a key or a value that cannot be.
    """
    spec = _placed(spec, {key: value for key, value in given.items() if key.removeprefix(STUDY) in _SHAPES})
    rest = {key: value for key, value in given.items() if key.removeprefix(STUDY) not in _SHAPES}
    settings, places = sorted_out(rest, known_of(spec)) if rest else ({}, {})
    return _placed(spec, {**places, **{f"{FIXED}{name}": value for name, value in settings.items()}})


def for_run(
    spec: StudySpec,
    texts: Iterable[str] = (),
    *,
    timeout_hours: float | None = None,
    n_cv_folds: int | None = None,
    stage2_epochs: int | None = None,
) -> StudySpec:
    """The study as the options of a run would have it; `texts` are those of ``--set``.

    Raises:
        InputErrors: one cannot be, or the study's trainer has no such thing.
    """
    spec = in_study(spec, parse(texts))
    kind, asked = kind_of(spec), dict[str, Any]()
    if timeout_hours is not None:
        asked["budget.timeout_hours"] = timeout_hours
    if n_cv_folds is not None:
        if kind.folds == "never":
            raise InputError(f"--n-cv-folds: the trainer {spec.trainer} does not cross-validate; must be left out")
        asked["cross_validation.n_folds"] = n_cv_folds
        if kind.folds == "optional":
            asked["cross_validation.enabled"] = True
    if stage2_epochs is not None:
        if "stage2_epochs" not in (kind.rules or {}):
            raise InputError(f"--stage2-epochs: the trainer {spec.trainer} has one stage; must be left out")
        asked["fixed.stage2_epochs"] = stage2_epochs
    return in_study(spec, asked)


def in_space(space: Space, given: Mapping[str, Any]) -> Space:
    """A space with some of its values fixed. Raises InputErrors as `in_study` does."""
    names = frozenset({*space.parameters, *space.derived, *space.fixed})
    settings, _ = sorted_out(given, Known(names, {}, frozenset(), frozenset()))
    return space.with_fixed(settings)


def in_configuration(
    spec: StudySpec, params: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[StudySpec, dict[str, Any]]:
    """Study and configuration with values in place. What the space derives from them is derived again, unless given.

    Raises:
        InputErrors: a key or a value that cannot be.
    """
    if not given:
        return spec, dict(params)
    settings, places = sorted_out(given, known_of(spec, params))
    space = build.space_of(spec)
    stale = {
        name
        for name, expression in space.derived.items()
        if name not in settings and _rests_on(space, expression.names, settings)
    }
    kept = {name: value for name, value in params.items() if name not in stale}
    return _placed(spec, places), space.resolve(kept, settings)


def _rests_on(space: Space, names: Iterable[str], changed: Collection[str]) -> bool:
    return any(
        name in changed or (name in space.derived and _rests_on(space, space.derived[name].names, changed))
        for name in names
    )


def sorted_out(given: Mapping[str, Any], known: Known) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings by their whole names, and places of the study file by theirs.

    Raises:
        InputErrors: a line for each key that is unknown, ambiguous, or means what another one means.
    """
    found: dict[str, dict[str, Any]] = {"setting": {}, "place": {}}
    mistakes = []
    for key, value in given.items():
        try:
            meant = meaning(key, known)
        except InputError as error:
            mistakes.append(str(error))
            continue
        if meant.name in found[meant.kind]:
            mistakes.append(f"{OPTION} {key}: is {meant.name}, which is given twice; must be given once")
        found[meant.kind][meant.name] = value
    if mistakes:
        raise InputErrors(mistakes)
    return found["setting"], found["place"]


def _placed(spec: StudySpec, places: Mapping[str, Any]) -> StudySpec:
    """The study with values at dotted places, checked as a file is. Paths among them count from the current folder, and
    are made absolute so that what is written down means the same from everywhere."""
    if not places:
        return spec
    document = copy.deepcopy(spec.as_mapping(passwords=True))
    for place, value in places.items():
        put(document, place, value)
    changed = {place.partition(".")[0] for place in places}
    return with_paths_from(from_mapping(document, OPTION), Path.cwd(), changed)
