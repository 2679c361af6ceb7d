"""The command line. No logic: each command calls a function of the spine and prints what it returns.

What is heavy is imported inside the commands, so that ``tune-lora --help`` loads neither Ray nor torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora import __version__, lora_commands
from tune_lora.errors import TuneLoraError

if TYPE_CHECKING:
    from tune_lora.spec import StudySpec

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (.yaml).")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, its study.db, or the study file.")]
NTrials = Annotated[
    str | None, typer.Option("--n-trials", metavar="N", help="Trials in all, such as 50; +50 is that many more.")
]
TimeoutHours = Annotated[float | None, typer.Option(min=0.001, help="Stop the search after this many hours.")]


class Format(StrEnum):
    """How suggestions are printed."""

    TABLE = "table"
    JSONL = "jsonl"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0, 1 for what failed, 2 for a mistake in what was given. One line each on stderr."""
    try:
        app(args=arguments, prog_name="tune-lora")
    except TuneLoraError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)  # noqa: T201 - plain, so that a place in a file can be clicked
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:  # not about a file that somebody named
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tune-lora {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Hyperparameter search for fine-tunes that cost real GPU hours.

    Begin with: tune-lora init FOLDER-OF-IMAGES
    """


@app.command()
def run(study: StudyFile, n_trials: NTrials = None, timeout_hours: TimeoutHours = None) -> None:
    """Run a study, or continue it where it stopped.

    Example: tune-lora run search_spaces/studies/demo.yaml --n-trials 20
    """
    from tune_lora import spec

    _search(spec.load(study), n_trials, timeout_hours)


@app.command()
def resume(results: Results, n_trials: NTrials = None, timeout_hours: TimeoutHours = None) -> None:
    """Go on with a study, given what it left behind.

    Example: tune-lora resume results/demo --n-trials +20
    """
    from tune_lora import sources

    _search(sources.study_to_resume(results), n_trials, timeout_hours)


@app.command()
def validate(study: StudyFile) -> None:
    """Say all that is wrong with a study file; start nothing.

    Example: tune-lora validate search_spaces/studies/demo.yaml
    """
    from tune_lora import build, spec, wording

    ready = build.plan(spec.load(study))
    tried = ", ".join(ready.space.parameters)
    typer.echo(f"{study}: valid; {ready.spec.budget.n_trials} trials of {ready.space.name} ({tried})")
    for source in ready.knowledge.sources:
        typer.echo(wording.carried(source.summary()))


@app.command()
def sample(
    what: Annotated[
        str, typer.Argument(metavar="STUDY-OR-SPACE", help="A study file, a space file, or a shipped name.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="How many suggestions.")] = 10,
    style: Annotated[Format, typer.Option("--format", help="A table, or one JSON object a line.")] = Format.TABLE,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sampler; default: the study's.")] = None,
) -> None:
    """Show what a study would try, without training. The second half is drawn after made-up results.

    Example: tune-lora sample lora_v2_1 -n 20 --format jsonl
    """
    import optuna

    from tune_lora import sampling, sources

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, search = sources.space_and_search(what)
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


@app.command()
def status(results: Results) -> None:
    """Show how a study stands, running or not.

    Example: tune-lora status results/demo
    """
    from tune_lora import sources, view

    record = sources.record_of(results)
    Console().print(view.panel(record, sources.planned_trials(record)))


@app.command()
def top(results: Results, n: Annotated[int, typer.Option("-n", min=1, help="How many trials.")] = 10) -> None:
    """List the best trials.

    Example: tune-lora top results/demo -n 5
    """
    from tune_lora import sources, view

    Console().print(view.top_table(sources.record_of(results), n))


@app.command()
def plot(
    results: Results,
    kind: Annotated[list[str] | None, typer.Option(help="One kind of figure; repeatable. Default: all.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; default: figures/ in the results.")] = None,
) -> None:
    """Draw the figures of a study.

    Example: tune-lora plot results/demo --kind slice --output figures
    """
    from typing import cast

    from tune_lora import figures, sources, store

    folder = sources.results_folder(results)
    study = store.load_study(folder)
    record, target = store.read(study), output or folder / "figures"
    kinds = cast("list[figures.Kind]", kind or figures.kinds_of(record))
    for path in figures.draw_each(record, study, kinds, target):
        typer.echo(path)


for command in (lora_commands.train, lora_commands.generate, lora_commands.evaluate):
    app.command()(command)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Captioned images, each with a .txt beside it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what is given and the defaults.")] = False,
    base: Annotated[str, typer.Option(help="tiny-sd, a diffusers folder, or a .safetensors file.")] = "tiny-sd",
    space: Annotated[str | None, typer.Option(help="Search space. Default: the one that fits the base.")] = None,
    n_trials: Annotated[int, typer.Option(min=1, help="How many trials.")] = 20,
    output: Annotated[Path | None, typer.Option(help="Default: study.yaml in the folder.")] = None,
) -> None:
    """Write a commented study file for a folder of captioned images.

    Example: tune-lora init path/to/images --yes
    """
    from tune_lora import scaffold

    if not yes:
        base = typer.prompt("Base model (tiny-sd, a diffusers folder, or a .safetensors file)", default=base)
        n_trials = typer.prompt("How many trials", default=n_trials, type=int)
    path = scaffold.write_study_file(folder, base=base, space=space, n_trials=n_trials, output=output)
    typer.echo(f"{path}\nnext: tune-lora validate {path}; tune-lora run {path}")


def _search(spec: StudySpec, n_trials: str | None, timeout_hours: float | None) -> None:
    from tune_lora import store, study
    from tune_lora.view import LiveView, summary

    if timeout_hours is not None:
        spec = spec.model_copy(update={"budget": spec.budget.model_copy(update={"timeout_hours": timeout_hours})})
    console = Console()
    with LiveView(console) as view:
        record = study.run(spec, n_trials=n_trials, view=view)
    console.print(summary(record, spec.folder))
    if record.stop_reason.startswith(store.INTERRUPTED):
        raise typer.Exit(lora_commands.INTERRUPTED_CODE)


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


if __name__ == "__main__":
    main()
