"""The commands that say what a study found and what comes next. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tune_lora.options import Results


def register(app: typer.Typer) -> None:
    """Makes these commands the program's."""
    app.command()(findings)
    app.command(name="next")(next_)


def findings(
    results: Results, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Say which signs of a good or a problematic study hold, with numbers, and what to do.

    Example: tune-lora findings results/demo
    """
    from tune_lora import analysis, findings_view, sources

    record = sources.record_of(results)
    found, table = analysis.findings(record), analysis.success_table(record)
    if as_json:
        content = {"findings": [one.as_dict() for one in found], "success": table.as_dict() if table else None}
        typer.echo(json.dumps({"study": record.name, **content}, indent=2, allow_nan=False))
    else:
        Console().print(findings_view.findings(record, found, table, str(results)))


def next_(
    results: Results,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file. Default: <study>-2.yaml here.")] = None,
    space: Annotated[
        str | None, typer.Option(help="Another space, by name or file; the study's own is changed without it.")
    ] = None,
    n_trials: Annotated[int | None, typer.Option(min=1, help="How many trials. Default: as many as before.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it exists.")] = False,
) -> None:
    """Write the study file that comes next: ranges moved as the evidence says, results carried over.

    Example: tune-lora next results/demo --out demo-2.yaml
    """
    from tune_lora import next_study, shell

    made = next_study.write(results, out, space=space, n_trials=n_trials, force=force)
    for line in made.told():
        typer.echo(line)
    typer.echo(f"{made.path}\n{shell.next_of(made.path)}")
