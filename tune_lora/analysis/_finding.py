"""What an analysis says: one finding a sign, in words and in numbers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["good", "warning", "info"]
KINDS: tuple[Kind, ...] = ("warning", "good", "info")
"""What asks for something first."""
KIND_WORDS: Mapping[Kind, str] = {"warning": "Warning", "good": "Good sign", "info": "Worth knowing"}
_COMMAND = re.compile(r"`(\w+) RESULTS([^`]*)`")
"""How advice names a command for a study."""


@dataclass(frozen=True)
class Finding:
    """One sign.

    `key` names it, the same in every study; `numbers` are plain data (JSON-able), those of the sentence and more;
    `advice` is what to do, empty where there is nothing to do.
    """

    key: str
    kind: Kind
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""

    def advice_parts(self, place: str) -> Iterator[tuple[str, bool]]:
        """The advice in pieces, each with whether it is a command, as it is typed; `place` is what the study is named
        by."""
        end = 0
        for found in _COMMAND.finditer(self.advice):
            yield self.advice[end : found.start()], False
            yield f"tune-lora {found[1]} {shlex.quote(place)}{found[2]}", True
            end = found.end()
        yield self.advice[end:], False

    def advice_for(self, place: str) -> str:
        """The advice with its commands in backticks."""
        return "".join(f"`{text}`" if is_command else text for text, is_command in self.advice_parts(place))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def trials(n: int, what: str = "trial") -> str:
    """``1 trial``, ``20 trials``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1] if words else "") if part)


def chance(p: float) -> str:
    """How often pure chance does as well: ``p = 0.03``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.0015 else f"p = {p:.2g}"
