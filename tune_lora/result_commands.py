"""The commands that read what a study left behind. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from tune_lora.options import Results, several_values

if TYPE_CHECKING:
    from tune_lora import figures


def register(app: typer.Typer) -> None:
    """Makes these commands the program's."""
    app.command()(top)
    app.command(cls=several_values("--params"))(plot)
    app.command()(report)
    app.command()(advise)


def top(
    results: Results,
    n: Annotated[int, typer.Option("-n", min=1, help="How many trials.")] = 10,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Only this hyperparameter, pruned and failed ones too.")
    ] = None,
) -> None:
    """List the best trials; with --by the values tried of one hyperparameter, by score.

    Example: tune-lora top results/demo -n 20 --by learning_rate
    """
    from tune_lora import sources, view

    record = sources.record_of(results)
    if by is None:
        Console().print(view.top_table(record, n))
        return
    from tune_lora import analysis, findings_view

    Console().print(findings_view.tried(record, by, analysis.tried(record, by), n))


def plot(
    results: Results,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", "--plot-type", help="One kind of figure; repeatable. Default: all."),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option("--params", metavar="NAME...", help="Hyperparameters to show; short names where unique."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; default: figures/ in the results.")] = None,
) -> None:
    """Draw the figures of a study.

    Example: tune-lora plot results/demo --plot-type contour --params learning_rate network_dim
    """
    from tune_lora import figures, sources, store

    folder = sources.results_folder(results)
    study = store.load_study(folder)
    record, target = store.read(study), output or folder / "figures"
    kinds = cast("list[figures.Kind]", kind or figures.kinds_of(record))
    for path in figures.draw_each(record, study, kinds, target, figures.named(record, params)):
        typer.echo(path)


def report(
    results: Results,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Make the W&B Report of the study, or bring it up to date.")
    ] = False,
) -> None:
    """Write report.html again as the study stands; with --wandb the team's report at Weights & Biases.

    Example: tune-lora report results/demo --wandb
    """
    from tune_lora import report as page
    from tune_lora import sources, store

    if not wandb:
        folder = sources.results_folder(results)
        typer.echo(page.write(store.load(folder), folder))
        return
    from tune_lora import team_report

    for line in team_report.publish(results).lines():
        typer.echo(line)


def advise(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Such as best_config.yaml; or a study file.")],
    study: Annotated[
        Path | None, typer.Option("--study", metavar="RESULTS", help="A finished study to check the rules against.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Hold rules of thumb against a training configuration: what is good, what is risky, what to try.

    Example: tune-lora advise results/demo/best_config.yaml --study results/demo
    """
    from tune_lora import advice_view
    from tune_lora import advise as rules_of_thumb

    found = rules_of_thumb.advise(config, study)
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in found], indent=2))
    else:
        console = Console()
        console.print(advice_view.table(found, console.width))
