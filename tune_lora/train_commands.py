"""The command that trains one configuration to its end. No logic; `tune_lora.cli` registers it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_lora.options import INTERRUPTED_CODE, Set

if TYPE_CHECKING:
    from trainables.protocol import Report


def register(app: typer.Typer) -> None:
    """Makes this command the program's."""
    app.command()(train)


def train(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="Results folder or study file: data, base, best trial.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration, such as best_config.yaml.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the configuration's.")] = None,
    early_stopping: Annotated[
        int | None, typer.Option(min=0, help="Epochs without a better validation value, then it ends; 0: never.")
    ] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Language models: write the whole model, too.")] = False,
    output: Annotated[Path | None, typer.Option(help="New folder; default: trained/ in the results.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the best trial's.")] = None,
    settings: Set = None,
) -> None:
    """Train the best configuration of a study, or any other, to its end. The same command again goes on where it was.

    Example: tune-lora train --config results/demo/best_config.yaml --epochs 20
    """
    from tune_lora import overrides, single

    try:
        trained = single.train(
            study,
            config=config,
            epochs=epochs,
            early_stopping=early_stopping,
            merged=merged,
            output=output,
            seed=seed,
            given=overrides.parse(settings or ()),
            watch=_say_report,
        )
        typer.echo(single.outcome(trained))
        typer.echo(trained)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from the last report", err=True)
        raise typer.Exit(INTERRUPTED_CODE) from None


def _say_report(report: Report, horizon: int, left: float) -> None:
    measured = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
    typer.echo(f"[{report.budget}/{horizon}] {measured}" + ("" if report.final else f" ({left:.0f} s left)"))
