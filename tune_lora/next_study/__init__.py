"""`tune-lora next`: the study file that follows from a study, with what was changed, why, and what is carried over."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import documents
from search_spaces.space import Space
from tune_lora import atomic, build, shell, sources, spec, wording
from tune_lora.analysis import Evidence
from tune_lora.errors import InputError
from tune_lora.knowledge import gather
from tune_lora.next_study import _carry as carry
from tune_lora.next_study import _file as file
from tune_lora.next_study._changes import Change, Kept, changes
from tune_lora.records import StudyRecord
from tune_lora.spec import StudySpec
from tune_lora.trainers import trainer_of

__all__ = ["Change", "Kept", "Next", "write"]


@dataclass(frozen=True)
class Next:
    """The next study: its file, its settings, and what there is to say about it."""

    path: Path
    spec: StudySpec
    origin: str
    changes: tuple[Change | Kept, ...]
    first: carry.First
    carried: carry.Carried
    notes: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """Everything in sentences, for the terminal and the head of the file."""
        lines = [self.origin, ""]
        lines += [f"- {one}" for one in self.changes] or ["- no range was changed: nothing is told apart from chance"]
        names = ", ".join(entry["name"] for entry in self.first.entries)
        lines += [f"- trained first, again: {names}"] if names else []
        lines += [f"- {line}" for line in self.first.left_out]
        told = self.carried.told
        lines += [f"- {told} result{'' if told == 1 else 's'} told to the sampler (search.warm_start)"] if told else []
        sampler = self.spec.search.sampler
        if shown := self.carried.shown:
            lines.append(f"- {shown} results only shown: the sampler {sampler} learns from none; tpe, gp and auto do")
        return [*lines, *(f"- {line}" for line in (*self.carried.left_out, *self.notes))]


def write(
    results: Path,
    out: Path | None = None,
    *,
    space: str | None = None,
    n_trials: int | None = None,
    force: bool = False,
) -> Next:
    """Writes the study file that comes after a finished study.

    Args:
        results: the study's results folder, its study.db, or its study file.
        out: the file to write; default ``<name>-2.yaml`` in the current folder.
        space: another space, by name or file. It is taken as it is; without it the study's own is changed as the
            evidence says.
        n_trials: trials of the next study; default as many as the last was to have.
        force: whether a file that exists is replaced.

    Raises:
        InputError: there is no such study, none of its trials completed, the file exists or cannot be written, or the
            space is none.
    """
    before, record, folder = sources.finished_study(results)
    if record.best is None:
        raise InputError(
            f"study {record.name!r}: no trial completed, so nothing leads on; must have one ({_why(results)})"
        )
    name = _free_name(before, out)
    path = out if out is not None else Path(f"{name}.yaml")
    _check_place(path, force=force)
    made = _made(before, record, folder, path, name, space, n_trials)
    atomic.write_text(path, _readable(made))
    return made


def _readable(made: Next) -> str:
    """The file's text, which reads back as the study that it is to be."""
    text = file.text(file.plain(made.spec), made.told())
    found = spec.from_mapping(documents.parse(text)[0], str(made.path))
    assert found.as_mapping() == made.spec.as_mapping(), "the next study does not read back as it was made"
    return text


def _made(
    before: StudySpec, record: StudyRecord, folder: Path, path: Path, name: str, space: str | None, n_trials: int | None
) -> Next:
    after, changed, notes = _settled(before, record, name, n_trials), list[Change | Kept](), _notes(before, record)
    if space is not None:
        after = _spec({**after.as_mapping(passwords=True), "space": _named(space), "preset": None}, path)
        notes = [f"the space is {space} as it is: its ranges were not held against the trials", *notes]
    else:
        after, changed = _moved(after, record)
    searched = build.space_of(after)
    maps = carry.mapping_between(record, searched)
    first = carry.first_of(record, searched, maps)
    after = _with_search(after, first, _warm_start(before, folder, path, maps))
    known = gather(spec.with_paths_from(after, path.parent), searched)
    origin = (
        f"The study after {record.name}: {wording.counts_line(record)}; best trial {_best(record)}. Written by "
        "`tune-lora next`."
    )
    return Next(path, after, origin, tuple(changed), first, carry.carried(known, record.name), tuple(notes))


def _named(space: str) -> str:
    """A shipped space by name, a file by its whole path."""
    path = Path(space).expanduser()
    return str(path.resolve()) if path.is_file() else space


def _settled(before: StudySpec, record: StudyRecord, name: str, n_trials: int | None) -> StudySpec:
    """The same study under a new name, with another seed, and without what it had to begin with."""
    search = {"seed": (before.search.seed + 1) % 2**32, "start_with": None, "priors": None}
    budget = {} if n_trials is None else {"n_trials": n_trials}
    results = str(record.spec.get("results", "results"))
    same = (Path(results) / record.name).resolve() == before.folder.resolve()
    return before.model_copy(
        update={
            "name": name,
            "results": results if same else before.results,
            "phases": (),
            "search": before.search.model_copy(update=search),
            "budget": before.budget.model_copy(update=budget),
        }
    )


def _moved(after: StudySpec, record: StudyRecord) -> tuple[StudySpec, list[Change | Kept]]:
    """The study with the changes that the evidence asks for and that its trainer and rules allow."""
    space = Space.load(after.space)
    if after.preset is not None:
        space = space.preset(after.preset)
    made: list[Change | Kept] = []
    refused: set[str] = set()
    for one in changes(Evidence(record), space):
        if one.name in refused:
            continue
        if isinstance(one, Kept):
            made.append(one)
            continue
        changed = _in_space(after, space, one, record)
        if why := _mistake(changed, after):
            refused.add(one.name)
            made.append(Kept(one.name, f"{one.why}; {one.what} it would be {why}"))
        else:
            after, space = changed, Space.load(changed.space)
            made.append(one)
    return after, made


def _in_space(after: StudySpec, space: Space, change: Change, record: StudyRecord) -> StudySpec:
    """The study with its space written out, and one parameter's settings in it."""
    source = documents.with_numbers({key: value for key, value in space.source.items() if key != "presets"})
    settings = dict(change.settings)
    if "default" in settings and record.best is not None:
        settings["default"] = record.tried(record.winner or record.best).get(change.name, settings["default"])
    source["parameters"][change.name] = settings
    source |= {"name": after.name, "title": f"{space.title or space.name}, after {record.name}"}
    return after.model_copy(update={"space": source, "preset": None})


def _mistake(changed: StudySpec, before: StudySpec) -> str:
    """What is wrong with a changed space that was not wrong before; empty where nothing is."""
    try:
        space, trainer = build.space_of(changed), trainer_of(changed)
    except InputError as error:
        return f"no space: {str(error).splitlines()[0]}"
    old = set(build.unfit(build.space_of(before), trainer))
    return next((f"refused: {line}" for line in build.unfit(space, trainer) if line not in old), "")


def _with_search(after: StudySpec, first: carry.First, warm_start: Sequence[Mapping[str, Any]]) -> StudySpec:
    search = after.search.model_dump(mode="json")
    several = bool(after.objective.several)
    search |= {"start_with": list(first.entries) or None, "warm_start": [] if several else list(warm_start)}
    return after.model_copy(update={"search": type(after.search).model_validate(search)})


def _warm_start(before: StudySpec, folder: Path, path: Path, maps: Mapping[str, str]) -> list[dict[str, Any]]:
    """The earlier study, and those that it was told of itself."""
    place = Path(os.path.relpath(folder.resolve(), path.parent.resolve())).as_posix()
    told = {"study": place, **({"map": dict(maps)} if maps else {})}
    earlier = [one.model_dump(mode="json", exclude_defaults=True) for one in before.search.warm_start]
    return [told, *(one for one in earlier if one.get("use", "observations") == "observations")]


def _notes(before: StudySpec, record: StudyRecord) -> list[str]:
    running = record.count("running")
    notes = [f"{running} of its trials still run; write this anew when they have ended"] if running else []
    if before.phases:
        notes.append("its phases are left out: one space is searched")
    if before.objective.several:
        notes.append("several objectives: no results are told to the sampler, the best trades are trained again")
    return notes


def _best(record: StudyRecord) -> str:
    best = record.winner
    if best is None:
        return "none"
    if record.is_verified and not record.has_several:
        return f"{best.number}, {record.score_name} {wording.number(record.winner_value)}, verified"
    return f"{best.number}, {wording.scored(record, best)}, not verified"


def _free_name(before: StudySpec, out: Path | None) -> str:
    """The file's own name where it may be a study's, else the study's with the next number that is free."""
    taken = out is None or (Path(before.results) / out.stem).exists() or out.stem == before.name
    if out is not None and not taken and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", out.stem):
        return out.stem
    stem, number = re.fullmatch(r"(.*?)(?:-(\d+))?", before.name).groups()  # type: ignore[union-attr]  # all match
    count = int(number or 1) + 1
    while (Path(before.results) / f"{stem}-{count}").exists():
        count += 1
    return f"{stem}-{count}"


def _check_place(path: Path, *, force: bool) -> None:
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out: got {str(path)!r}; must end in .yaml")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; must be a folder to write {path.name} into")
    if path.is_dir() or (path.exists() and not force):
        raise InputError(f"{path} exists and is kept; name another file with --out, or replace it with --force")


def _spec(document: Mapping[str, Any], path: Path) -> StudySpec:
    return spec.from_mapping({key: value for key, value in document.items() if value is not None}, str(path))


def _why(results: Path) -> str:
    return f"`{shell.command('findings', results)}` says why"
