"""One family of errors. Each message says what was got, what it must be and what is available; imports nothing of
ours."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 500
"""Characters of one mistake. What was given is quoted in it, and may be a whole file."""
_LISTED = 300
_OBEYED = ("Cc", "Zl", "Zp", "Cs")
"""Categories of characters that end a line or that a terminal obeys; surrogates cannot be printed at all."""
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the direction of writing, so that a name reads as another."""


class TuneLoraError(Exception):
    """Anything a person can act on. The command line prints the message as one line and exits with `exit_code`."""

    exit_code = 1


class InputError(TuneLoraError):
    """A mistake in what the user gave: a file, a setting, an argument. Nothing has been started. Its message is one
    line (`one_line`)."""

    exit_code = 2

    def __init__(self, mistake: object = "") -> None:
        super().__init__(one_line(str(mistake)))


class InputErrors(InputError):
    """Several mistakes found in one pass, one line each."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(map(one_line, mistakes))
        TuneLoraError.__init__(self, "\n".join(self.mistakes))

    def __reduce__(self) -> tuple[type[InputErrors], tuple[tuple[str, ...]]]:
        # Exceptions are pickled with what they printed, which is not what this one is made of.
        return type(self), (self.mistakes,)


class StudyError(TuneLoraError):
    """A study that cannot go on: its storage is broken, its space unsatisfiable, its trials crash."""


def one_line(text: str) -> str:
    """A mistake as one line of at most `LONGEST` characters, whatever it quotes: characters that a terminal obeys are
    written as escapes, and of a long one the middle is left out."""
    line = "".join(character if _is_shown(character) else ascii(character)[1:-1] for character in text)
    if len(line) <= LONGEST:
        return line
    gap = " ... "
    end = LONGEST // 3
    return line[: LONGEST - end - len(gap)] + gap + line[-end:]


def _is_shown(character: str) -> bool:
    return character not in _TURNING and unicodedata.category(character) not in _OBEYED


def nearest(got: str, available: Iterable[object]) -> str:
    """A hint such as ``did you mean 'epochs'? (available: epochs, seed)``, empty where nothing is available. Of a long
    list the beginning is told, and how many more there are."""
    names = sorted(map(str, available))  # YAML's names may be numbers
    if not names:
        return ""
    close = get_close_matches(got[:LONGEST], names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}(available: {_listed(names)})"


def _listed(names: list[str]) -> str:
    shown, length = 0, 0
    while shown < len(names) and length + len(names[shown]) <= _LISTED:
        length += len(names[shown]) + 2
        shown += 1
    more = [f"and {len(names) - shown} more"] if shown < len(names) else []
    return ", ".join(names[:shown] + more)
