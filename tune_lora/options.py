"""Options that several commands have, and the ways in which they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

INTERRUPTED_CODE = 130
"""What shells expect of a program that ctrl-C ended; of one that SIGTERM ended: `termination.TERMINATED_CODE`."""

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (.yaml).")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, its study.db, or the study file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting or a place in the study file; repeatable."),
]


def several_values(*options: str) -> type[TyperCommand]:
    """A command whose `options` take all the words up to the next option: ``--params lr batch_size``."""

    class SeveralValues(TyperCommand):
        spread: ClassVar[tuple[str, ...]] = options

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            # `ctx` is typer's own copy of click's Context. An option there has a fixed number of values, but one that
            # is repeated has as many as one likes.
            return super().parse_args(ctx, repeated(args, self.spread))

    return SeveralValues


def repeated(arguments: Sequence[str], options: Iterable[str]) -> list[str]:
    """Command line words with ``--x a b`` as ``--x a --x b`` for each x of `options`."""
    found: list[str] = []
    known, current, has_value = frozenset(options), "", True
    for word in arguments:
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            current, has_value = (name if name in known else ""), bool(equals)
            found.append(word)
        elif current and has_value:
            found += [current, word]
        else:
            has_value = True
            found.append(word)
    return found
