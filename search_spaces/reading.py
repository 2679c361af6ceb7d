"""From YAML to a Space. Every mistake is collected with its place, and all are raised together."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from search_spaces import documents
from search_spaces.completion import STARTS
from search_spaces.fields import Mistakes
from search_spaces.lookahead import clashing
from search_spaces.reader import Reader
from search_spaces.space import Space
from tune_lora.errors import InputError, InputErrors, nearest


def shipped() -> dict[str, Path]:
    """The spaces that come with the package, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def load(what: str | Path | Mapping[str, Any], where: str) -> Space:
    """See `Space.load`."""
    if isinstance(what, Mapping):
        return from_mapping(what, where)
    path = shipped().get(str(what)) or _file(what)
    if path is None:
        if Path(what).suffix in (".yaml", ".yml"):
            raise InputErrors(
                [f"{where}: file {str(what)!r} does not exist; must be a space's YAML file, or a shipped space"]
            )
        raise InputErrors(
            [f"{where}: unknown space {str(what)!r}; {nearest(str(what), shipped())}, or the path of a YAML file"]
        )
    return from_mapping(
        documents.read(path), where if path in shipped().values() else str(path), default_name=path.stem
    )


def _file(what: str | Path) -> Path | None:
    try:
        path = Path(what).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, a home of nobody, a null byte
        return None


def from_mapping(mapping: Mapping[str, Any], where: str, default_name: str = "inline") -> Space:
    """See `Space.from_mapping`."""
    if not isinstance(mapping, Mapping):
        raise InputErrors([f"{where}: got {type(mapping).__name__}, must be a mapping with parameters"])
    reader = Reader(documents.with_numbers(mapping), Mistakes(where))
    space = reader.space(default_name)
    if not reader.mistakes:
        _check_satisfiable(space, reader.mistakes)
    if reader.mistakes:
        raise InputErrors(reader.mistakes.lines)
    return space


def with_preset(source: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """A space's mapping with a preset's parameter settings in it, and without the constraints it switches off."""
    changed = copy.deepcopy(dict(source))
    for name, settings in preset.get("parameters", {}).items():
        changed["parameters"][name] = {**changed["parameters"][name], **settings}
    off = set(preset.get("without", ()))
    changed["constraints"] = [rule for rule in changed.get("constraints", ()) if rule["name"] not in off]
    changed.pop("presets", None)
    return changed


def with_fixed(
    source: Mapping[str, Any], values: Mapping[str, Any], instead_of: Collection[str] = ()
) -> dict[str, Any]:
    """A space's mapping with values fixed, in place of those named; a parameter among them is no longer searched."""
    changed = copy.deepcopy(dict(source))
    kept = {name: value for name, value in changed.get("fixed", {}).items() if name not in instead_of}
    changed["fixed"] = {**kept, **values}
    for name in values:
        changed["parameters"].pop(name, None)
        changed.get("external", {}).pop(name, None)
        for preset in changed.get("presets", {}).values():
            preset.get("parameters", {}).pop(name, None)
    changed["stratify"] = [name for name in changed.get("stratify", ()) if name not in values]
    return changed


def _check_satisfiable(space: Space, mistakes: Mistakes) -> None:
    try:
        rules = clashing(space)
    except InputError as error:  # an expression that values cannot satisfy, or rules too entangled to search
        mistakes.add("constraints", str(error))
        return
    if not rules:
        return
    none = "no configuration" if space.lookahead.is_certain else f"no configuration was found in {STARTS} searches that"
    mistakes.add("constraints", f"{none} satisfies {', '.join(rules)} together; widen a range or drop a rule")
