"""The commands that use a finished LoRA. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Prompts = Annotated[list[str] | None, typer.Option("--prompt", "--prompts", help="Repeatable. Default: the study's.")]
Size = Annotated[
    str | None, typer.Option(metavar="WxH", help="Pixels, such as 512 or 512x768. Default: as it was trained.")
]


def register(app: typer.Typer) -> None:
    """Makes these commands the program's."""
    app.command()(generate)
    app.command()(evaluate)


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
