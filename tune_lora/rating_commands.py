"""The commands in which people look at a study's pictures and trials. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tune_lora.options import Results

if TYPE_CHECKING:
    from tune_lora.rating import Session

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="On this machine. Default: a free one.")]


def register(app: typer.Typer) -> None:
    """Makes these commands the program's."""
    app.command()(rate)
    app.command()(dashboard)


def rate(
    results: Results,
    rater: Annotated[str | None, typer.Option(help="Your name beside your answers. Default: the user's.")] = None,
    top: Annotated[int, typer.Option(min=2, max=100, help="How many of the best trials are compared.")] = 12,
    pairs: Annotated[int | None, typer.Option(min=1, help="How many pairs. Default: three a trial.")] = None,
    question: Annotated[str | None, typer.Option(help="What is asked of each pair.")] = None,
    port: Port = None,
    learn: Annotated[
        Path | None,
        typer.Option(metavar="STUDY", help="No page: write what was learnt into this study file, new or not."),
    ] = None,
    weight: Annotated[float, typer.Option(min=0.001, help="Of the learnt term in the score, with --learn.")] = 0.3,
) -> None:
    """Judge pairs of pictures of the best trials in a browser; learn from it what people like.

    Example: tune-lora rate results/demo --rater anna
    """
    from tune_lora import rate as rating
    from tune_lora import rating_view, shell, taste_file

    if learn is not None:
        for line in taste_file.write(results, learn, weight):
            typer.echo(line)
        return

    def ready(address: str, asked: Session) -> None:
        typer.echo(f"{asked.total} pairs of {len(asked.candidates)} trials, judged by {asked.rater}; open\n{address}")
        typer.echo("answers are saved as they are given; 'finish' or ctrl-C ends this and shows what they come to")

    record, found = rating.rate(
        results, ready, rater=rater, top=top, n_pairs=pairs, question=question or rating.QUESTION, port=port
    )
    Console().print(rating_view.summary(record, found))
    if found is not None:
        typer.echo(
            f"next: {shell.command('rate', results, '--learn', 'next.yaml')} lets the next study look for what is liked"
        )


def dashboard(results: Results, port: Port = None) -> None:
    """Look at a study in optuna-dashboard, with its pictures and notes; also while it runs. Changes nothing.

    Example: tune-lora dashboard results/demo
    """
    from tune_lora import dashboard as looking

    def ready(address: str) -> None:
        typer.echo(f"open\n{address}\nctrl-C ends it")

    looking.serve(results, ready, port)
