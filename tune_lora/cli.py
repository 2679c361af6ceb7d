"""The command line. No logic: each command calls a function of the spine and prints what it returns.

What is heavy is imported inside the commands, so that ``tune-lora --help`` loads neither Ray nor torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from trainables.redaction import redacted
from tune_lora import (
    __version__,
    findings_commands,
    lora_commands,
    rating_commands,
    result_commands,
    study_commands,
    submit_commands,
    train_commands,
    verify_commands,
)
from tune_lora.errors import TuneLoraError, one_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0, 1 for what failed, 2 for a mistake in what was given. One line each on stderr."""
    try:
        app(args=arguments, prog_name="tune-lora")
    except TuneLoraError as error:
        for line in str(error).splitlines():
            print(f"error: {redacted(line)}", file=sys.stderr)  # noqa: T201 - plain, so that a place in a file can be clicked
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:  # not about a file that somebody named
            raise
        print(f"error: {one_line(f'{error.filename}: {error.strerror}')}", file=sys.stderr)  # noqa: T201 - as above
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

    Begin with: tune-lora init FOLDER-OR-TABLE
    """


for topic in (
    study_commands,
    submit_commands,
    result_commands,
    findings_commands,
    rating_commands,
    verify_commands,
    train_commands,
    lora_commands,
):
    topic.register(app)


if __name__ == "__main__":
    main()
