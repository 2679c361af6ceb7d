"""The commands that train one LoRA and use a finished one. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from trainables.protocol import Report

Prompts = Annotated[list[str] | None, typer.Option("--prompt", "--prompts", help="Repeatable. Default: the study's.")]
Size = Annotated[
    str | None, typer.Option(metavar="WxH", help="Pixels, such as 512 or 512x768. Default: as it was trained.")
]

INTERRUPTED_CODE = 130
"""What shells expect of a program that ctrl-C ended."""


def train(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="Results folder or study file: images, base, best trial.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration, such as best_config.yaml.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the configuration's.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Language models: write the whole model, too.")] = False,
    output: Annotated[Path | None, typer.Option(help="New folder; default: trained/ in the results.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the best trial's.")] = None,
) -> None:
    """Train the best configuration of a study, or any other, to its end. The same command again goes on where it was.

    Example: tune-lora train --config results/demo/best_config.yaml --epochs 20
    """
    from tune_lora import single

    try:
        trained = single.train(
            study, config=config, epochs=epochs, merged=merged, output=output, seed=seed, watch=_say_report
        )
        typer.echo(trained)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from the last report", err=True)
        raise typer.Exit(INTERRUPTED_CODE) from None


def generate(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Results, a folder that `train` made, or a LoRA file.")
    ],
    prompt: Prompts = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 8,
    base: Annotated[str | None, typer.Option(help="Base model. Default: the study's, or tiny-sd.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first image.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Of the diffusion sampler.")] = 25,
    guidance: Annotated[float, typer.Option(min=1, help="Classifier-free guidance.")] = 4.0,
    size: Size = None,
    output: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("generated.png"),
    max_tokens: Annotated[int, typer.Option(min=1, help="Of text: the longest completion.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="Of text: 0 takes the likeliest words.")] = 0.0,
) -> None:
    """Draw images with a study's winner, or with any LoRA. One of a language model writes instead.

    Example: tune-lora generate results/demo --prompt "bobo, side view, winking" -n 4
    """
    from tune_lora import loras, texts

    if texts.is_text(source):
        for written in texts.complete(
            source, base=base, prompts=prompt or (), n=n, seed=seed, max_tokens=max_tokens, temperature=temperature
        ):
            typer.echo(f"{written.prompt.strip()}\n-> {written.completion}\n")
        return
    drawn = loras.generate(
        source,
        output=output,
        base=base,
        prompts=prompt or (),
        n=n,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=size,
    )
    typer.echo(drawn)


def evaluate(
    lora: Annotated[
        Path, typer.Argument(metavar="LORA", help="A LoRA file, made anywhere; results; a folder that `train` made.")
    ],
    study: Annotated[Path | None, typer.Option(help="Study or results whose images and prompts judge it.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="Captioned images that judge it.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model. Default: the study's, or tiny-sd.")] = None,
    prompt: Prompts = None,
    n: Annotated[int | None, typer.Option("-n", min=2, help="How many images. Default: the study's, or 8.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first image. Default: the study's.")] = None,
    size: Size = None,
    output: Annotated[Path, typer.Option(help="The sheet to write (PNG): base and LoRA.")] = Path("evaluated.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a LoRA against the untrained base: every measure with its target, failures, and a sheet to look at.

    Example: tune-lora evaluate downloads/character.safetensors --study results/demo
    """
    from tune_lora import lora_view, loras

    found = loras.evaluate(
        lora, output=output, study=study, dataset=dataset, base=base, prompts=prompt or (), n=n, seed=seed, size=size
    )
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        Console().print(lora_view.evaluation(found))


def _say_report(report: Report, horizon: int, left: float) -> None:
    measured = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
    typer.echo(f"[{report.budget}/{horizon}] {measured}" + ("" if report.final else f" ({left:.0f} s left)"))
