"""``--set key=value``: what a key means, and the study or configuration with the value in it.

A key is a setting of the trainer or the space (``optimizer.lr``), a place in the study file (``search.seed``), or the
last part of one where that is unique (``lr``). ``fixed.`` and ``study.`` before it say which of the two is meant.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel

from search_spaces import documents
from search_spaces.space import Space
from trainables.rules import is_known
from tune_lora import build
from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.names import matching
from tune_lora.spec import StudySpec, from_mapping
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
                found[key] = documents.with_numbers(yaml.safe_load(value))
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


def places_of(model: type[BaseModel], stem: str = "") -> tuple[frozenset[str], frozenset[str]]:
    """The dotted places of a section and those among them that hold names of the user's own."""
    places, open_places = set[str](), set[str]()
    for name, field in model.model_fields.items():
        place = f"{stem}{name}"
        places.add(place)
        inner, is_open = _inner(field.annotation)
        if is_open:
            open_places.add(place)
        if inner is not None:
            below, open_below = places_of(inner, f"{place}.")
            places |= below
            open_places |= open_below
    return frozenset(places), frozenset(open_places)


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section that an annotation names outside of lists, and whether it may be a mapping by any names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin = getattr(annotation, "__origin__", None)
    if origin in (dict, Mapping) or annotation is dict:
        return None, True
    if origin in (list, tuple):
        return None, False
    found = [_inner(part) for part in get_args(annotation) if part is not annotation]
    return next((model for model, _ in found if model is not None), None), any(is_open for _, is_open in found)


def in_study(spec: StudySpec, given: Mapping[str, Any]) -> StudySpec:
    """The study with values in place: settings are fixed for all trials, places of the file are replaced.

    Raises:
        InputErrors: a key or a value that cannot be.
    """
    spec = _placed(spec, {key: value for key, value in given.items() if key.removeprefix(STUDY) in _SHAPES})
    rest = {key: value for key, value in given.items() if key.removeprefix(STUDY) not in _SHAPES}
    settings, places = sorted_out(rest, known_of(spec)) if rest else ({}, {})
    return _placed(spec, {**places, **{f"{FIXED}{name}": value for name, value in settings.items()}})


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
    """The study with values at dotted places, checked as a file is."""
    if not places:
        return spec
    document = copy.deepcopy(spec.as_mapping())
    for place, value in places.items():
        _put(document, place, value)
    return from_mapping(document, OPTION)


def _put(document: dict[str, Any], place: str, value: Any) -> None:
    """Writes a value at a dotted place. Below a mapping by the user's own names a dot is part of the name."""
    first, dot, rest = place.partition(".")
    if not dot:
        document[first] = value
        return
    if first == FIXED.rstrip("."):
        document[first] = {**(document.get(first) or {}), rest: value}
        return
    inner = document.get(first)
    if inner is not None and not isinstance(inner, dict):
        raise InputError(f"{OPTION} {place}: {first} is {inner!r} here, which holds nothing; set {first} as a whole")
    document[first] = inner or {}
    _put(document[first], rest, value)
