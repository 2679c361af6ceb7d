"""From what a study file asks for to what the study starts with; every mistake is found at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from search_spaces.space import Space
from tune_lora.baseline import BASELINE
from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.knowledge import _earlier as earlier
from tune_lora.knowledge import _tables as tables
from tune_lora.knowledge._points import Knowledge, Reference, Source, observed
from tune_lora.records import PRIOR
from tune_lora.search_spec import WarmStartSpec
from tune_lora.spec import StudySpec
from tune_lora.storage_url import written

LEARNING = ("tpe", "gp", "predictive", "auto")
"""Samplers that learn from trials they did not suggest; for the others past results are shown in reports only."""


def gather(spec: StudySpec, space: Space) -> Knowledge:
    """All that the study file and its space know beforehand. Reads files and earlier studies; writes nothing.

    Raises:
        InputErrors: every mistake in `search.priors`, `start_with`, `observations` and `warm_start`.
    """
    mistakes: list[str] = []
    search, direction = spec.search, spec.objective.pruned_on.direction
    held = [prior.name for prior in space.priors]
    priors = search.priors if search.priors is not None else tuple(name for name in held if name == BASELINE)
    if not isinstance(priors, bool):
        for name in priors:
            if name not in held:
                hint = nearest(name, held) or f"space {space.name} has none"
                mistakes.append(f"search.priors: unknown prior {name!r}; {hint}")
    known = Knowledge.of(space, direction, priors=priors)
    references, sources = list(known.references), list(known.sources)
    if search.start_with is not None:
        references += _named(search.start_with, space, references, mistakes)
    if search.observations is not None:
        label = Path(search.observations).name if isinstance(search.observations, str) else "observations"
        rows = tables.read(search.observations, "search.observations", space, mistakes)
        past = [(f"{label}:{row.name}", row.params, row.value, row.note) for row in rows]
        sources.append(observed(label, past, space, direction))
    labels = {source.label: "" for source in sources}
    given = [(one.study, one.name, one.use) for one in search.warm_start]
    for index, asked in enumerate(search.warm_start):
        if given.index(given[index]) < index:
            mistakes.append(
                f"search.warm_start.{index}: {written(asked.study)} is given twice as {asked.use}; must be given once"
            )
        carried, source = _carry(asked, spec, space, f"search.warm_start.{index}", labels, mistakes)
        references += carried
        sources += [source] if source else []
    if mistakes:
        raise InputErrors(mistakes)
    if search.sampler not in LEARNING:
        sources = [replace(source, values="shown") for source in sources]
    return Knowledge(tuple(references), tuple(sources))


def _named(
    given: str | Sequence[dict[str, object]], space: Space, taken: Sequence[Reference], mistakes: list[str]
) -> list[Reference]:
    """Configurations that somebody wants tried first, as they are; each sets what has no default."""
    names, found = {reference.provenance for reference in taken}, []
    for row in tables.read(given, "search.start_with", space, mistakes):
        provenance, config = f"{PRIOR}{row.name}", space.complete(row.params)
        resolved = space.resolve(config)
        if provenance in names:
            mistakes.append(f"{row.place}: the space has a prior {row.name!r}; must have another name")
        unset = (name for name in space.parameters if name not in config and space.exists(name, resolved))
        mistakes += [f"{row.place}: {name} is not set and has no default; must be set" for name in unset]
        for name, made in space.derived.items():
            if name in config and made.names <= config.keys() and made(config) != config[name]:
                mistakes.append(f"{row.place}: {name}: got {config[name]}, but {made.text} is {made(config)}")
        found.append(Reference(provenance, row.params, (row.note,) if row.note else (), row.seed))
    return found


def _carry(
    asked: WarmStartSpec, spec: StudySpec, space: Space, where: str, labels: dict[str, str], mistakes: list[str]
) -> tuple[list[Reference], Source | None]:
    try:
        record = earlier.open_earlier(asked, spec)
    except InputError as error:
        mistakes.append(f"{where}.study: {error}")
        return [], None
    expressions = earlier.expressions_of(asked, record, space, where, mistakes)
    label = _distinct(record.name, f"{written(asked.study)} {record.name}", labels)
    wants_references = asked.use == "priors"
    n = asked.top or (earlier.REFERENCES if wants_references else None)
    trials = earlier.Earlier(record, label, space, expressions, n=n)
    if wants_references:
        references = trials.references()
        return references, Source(label, (), tuple(trials.left_out), "shown", record.direction, len(references))
    try:
        return [], trials.source(earlier.scale_of(asked, record, spec))
    except InputError as error:
        mistakes.append(f"{where}.values: {error}")
        return [], None


def _distinct(name: str, origin: str, taken: dict[str, str]) -> str:
    """The name, or with a number where two earlier studies are called the same."""
    label, number = name, 2
    while taken.get(label, origin) != origin:
        label, number = f"{name}-{number}", number + 1
    taken[label] = origin
    return label
