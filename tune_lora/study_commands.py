"""The commands about a study that runs or will. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora.options import INTERRUPTED_CODE, Results, Set, StudyFile

if TYPE_CHECKING:
    from tune_lora.spec import StudySpec

NTrials = Annotated[
    str | None, typer.Option("--n-trials", metavar="N", help="Trials in all, such as 50; +50 is that many more.")
]
TimeoutHours = Annotated[float | None, typer.Option(min=0.001, help="Stop the search after this many hours.")]


class Format(StrEnum):
    """How suggestions are printed."""

    TABLE = "table"
    JSONL = "jsonl"


def register(app: typer.Typer) -> None:
    """Makes these commands the program's."""
    for command in (run, resume, validate, sample, init):
        app.command()(command)


def run(
    study: StudyFile,
    n_trials: NTrials = None,
    timeout_hours: TimeoutHours = None,
    n_cv_folds: Annotated[
        int | None, typer.Option(min=2, help="Folds of cross-validation, where the trainer has it.")
    ] = None,
    stage2_epochs: Annotated[int | None, typer.Option(min=1, help="Of a two-stage study, for all its trials.")] = None,
    settings: Set = None,
) -> None:
    """Run a study, or continue it where it stopped.

    Example: tune-lora run search_spaces/studies/demo.yaml --n-trials 20
    """
    from tune_lora import overrides, spec

    asked = overrides.for_run(
        spec.load(study),
        settings or (),
        timeout_hours=timeout_hours,
        n_cv_folds=n_cv_folds,
        stage2_epochs=stage2_epochs,
    )
    _search(asked, n_trials)


def resume(
    results: Results, n_trials: NTrials = None, timeout_hours: TimeoutHours = None, settings: Set = None
) -> None:
    """Go on with a study, given what it left behind.

    Example: tune-lora resume results/demo --n-trials +20
    """
    from tune_lora import overrides, sources

    found = sources.study_to_resume(results)
    _search(overrides.for_run(found, settings or (), timeout_hours=timeout_hours), n_trials)


def validate(study: StudyFile, settings: Set = None) -> None:
    """Say all that is wrong with a study file; start nothing.

    Example: tune-lora validate search_spaces/studies/demo.yaml
    """
    from tune_lora import build, overrides, spec, wording

    ready = build.plan(overrides.in_study(spec.load(study), overrides.parse(settings or ())))
    tried = ", ".join(ready.space.parameters)
    typer.echo(f"{study}: valid; {ready.spec.extent} of {ready.space.name} ({tried})")
    for source in ready.knowledge.sources:
        typer.echo(wording.carried(source.summary()))


def sample(
    what: Annotated[
        str, typer.Argument(metavar="STUDY-OR-SPACE", help="A study file, a space file, or a shipped name.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="How many suggestions.")] = 10,
    style: Annotated[Format, typer.Option("--format", help="A table, or one JSON object a line.")] = Format.TABLE,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sampler; default: the study's.")] = None,
    settings: Set = None,
) -> None:
    """Show what a study would try, without training. The second half is drawn after made-up results.

    Example: tune-lora sample lora_v2_1 -n 20 --format jsonl
    """
    import optuna

    from tune_lora import overrides, sampling, sources

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, search = sources.space_and_search(what, overrides.parse(settings or ()))
    drawn = sampling.suggestions(
        space,
        n,
        search.seed if seed is None else seed,
        sampler=search.sampler,
        n_startup_trials=search.n_startup_trials,
    )
    if style is Format.JSONL:
        for config in drawn:
            typer.echo(json.dumps(config))
    else:
        Console().print(_table(drawn))


def init(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Images (captioned, or by class), a table, or examples.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what is given and the defaults.")] = False,
    task: Annotated[
        str | None, typer.Option(help="lora, classifier, llm or transfer. Default: what the path fits.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of a table: what is predicted.")] = None,
    stage1: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Two stages: the table with computed labels.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Of a LoRA: tiny-sd, a diffusers folder, a .safetensors file; a language model.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Of an image LoRA. Default: the one that fits the base.")] = None,
    n_trials: Annotated[int | None, typer.Option(min=1, help="How many trials. Default: 20; of a transfer 50.")] = None,
    output: Annotated[Path | None, typer.Option(help="Default: study.yaml in the folder.")] = None,
) -> None:
    """Write a commented study file for what you have: images, a table, examples of text.

    Example: tune-lora init path/to/images --yes
    """
    from tune_lora import scaffold, shell

    asked = scaffold.Asked(path, target, base, space, n_trials, stage1)
    task = scaffold.settled(asked, task)
    if not yes:
        if task == "lora":
            base = typer.prompt(
                "Base model (tiny-sd, a diffusers folder, or a .safetensors file)", default=base or "tiny-sd"
            )
        elif task == "llm":
            base = typer.prompt(
                "Base model (a Hugging Face folder, a .gguf file, a hub name)", default=base or "smollm2"
            )
        n_trials = typer.prompt("How many trials", default=scaffold.trials(asked, task), type=int)
        asked = scaffold.Asked(path, target, base, space, n_trials, stage1)
    file = scaffold.write_study_file(asked, task=task, output=output)
    for sentence in scaffold.told(asked, task):
        typer.echo(sentence)
    typer.echo(f"{file}\n{shell.next_of(file)}")


def _search(spec: StudySpec, n_trials: str | None) -> None:
    from tune_lora import store, study
    from tune_lora.view import LiveView, summary

    if spec.phases:
        _search_phases(spec, n_trials)
        return
    console = Console()
    with LiveView(console) as view:
        record = study.run(spec, n_trials=n_trials, view=view)
    console.print(summary(record, spec.folder))
    if record.stop_reason.startswith(store.INTERRUPTED):
        raise typer.Exit(_code(record.stop_reason))


def _search_phases(spec: StudySpec, n_trials: str | None) -> None:
    from tune_lora import phases, phases_report, store
    from tune_lora.view import LiveView

    phases.refuse_totals(n_trials)
    with LiveView(Console()) as view:
        record = phases.run(spec, view=view)
    for line in phases_report.summary(record, spec):
        typer.echo(line)
    if record.stop_reason.startswith(store.INTERRUPTED):
        raise typer.Exit(_code(record.stop_reason))


def _code(stop_reason: str) -> int:
    """The exit code of a study that was interrupted."""
    from tune_lora import termination

    return termination.TERMINATED_CODE if termination.SIGTERM in stop_reason else INTERRUPTED_CODE


def _table(configs: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One suggestion a row; what all have in common stands once, below."""
    from tune_lora import wording

    rows = [wording.settings(config) for config in configs]
    shared = set.intersection(*(set(row.items()) for row in rows)) if len(rows) > 1 else set()
    table = Table("", "configuration", box=None, pad_edge=False, header_style="dim")
    for number, row in enumerate(rows, start=1):
        table.add_row(str(number), Text(_settings(item for item in row.items() if item not in shared)))
    in_all = _settings(item for item in rows[0].items() if item in shared)
    return Group(table, Text(f"in every trial: {in_all}", style="dim")) if shared else table


def _settings(items: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {text}" for name, text in items)
