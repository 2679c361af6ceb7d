"""The commands that say how far a study can be trusted. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tune_lora.options import INTERRUPTED_CODE, Results


def register(app: typer.Typer) -> None:
    """Makes these commands the program's."""
    app.command()(verify)
    app.command()(compare)


def verify(
    results: Results,
    top: Annotated[int, typer.Option(min=1, help="How many of the best trials.")] = 5,
    seeds: Annotated[int, typer.Option(min=2, help="How many new seeds each, the same for all.")] = 5,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train them again with the new seeds as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the best trials again by what the search has not seen, and recommend the one that holds.

    Example: tune-lora verify results/demo --top 5 --seeds 5
    """
    from tune_lora import verify as verifying
    from tune_lora import verify_view
    from tune_lora.view import LiveView

    console = Console(stderr=as_json)
    try:
        with LiveView(console) as view:
            record, found = verifying.verify(results, top=top, seeds=seeds, retrain=retrain, view=view)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on, and what was measured is kept", err=True)
        raise typer.Exit(INTERRUPTED_CODE) from None
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        console.print(verify_view.summary(record, found, results))


def compare(
    first: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, its study.db, or a study file.")],
    second: Annotated[Path, typer.Argument(metavar="RESULTS", help="Another one, of the same space or a similar one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether two studies found the same region, with the evidence: best trials, results, what mattered.

    Example: tune-lora compare results/demo results/demo-seed-123
    """
    from tune_lora import compare as comparing
    from tune_lora import compare_view, sources

    one, two = sources.record_of(first), sources.record_of(second)
    found = comparing.compare(one, two)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2, default=str))
    else:
        Console().print(compare_view.summary(found, one, two))
