"""One family of errors. Each message says what was got, what it must be and what is available; imports nothing of
ours."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TuneLoraError(Exception):
    """Anything a person can act on. The command line prints the message as one line and exits with `exit_code`."""

    exit_code = 1


class InputError(TuneLoraError):
    """A mistake in what the user gave: a file, a setting, an argument. Nothing has been started."""

    exit_code = 2


class InputErrors(InputError):
    """Several mistakes found in one pass, one line each."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))

    def __reduce__(self) -> tuple[type[InputErrors], tuple[tuple[str, ...]]]:
        # Exceptions are pickled with what they printed, which is not what this one is made of.
        return type(self), (self.mistakes,)


class StudyError(TuneLoraError):
    """A study that cannot go on: its storage is broken, its space unsatisfiable, its trials crash."""


def nearest(got: str, available: Iterable[str]) -> str:
    """A hint such as ``did you mean 'epochs'? (available: epochs, seed)``, empty where nothing is available."""
    names = sorted(available)
    if not names:
        return ""
    close = get_close_matches(got, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}(available: {', '.join(names)})"
