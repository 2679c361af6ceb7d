"""What a lost worker is called in the summary: pure, from what Ray wrote down about a trial that it starts again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainables import checkpoints

_FAILURE = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)
_RAISED = re.compile(r"^\S*\b(Leaving|Lost|Superseded): (.*)$", re.MULTILINE)
_NODE = re.compile(r"\bnode (has )?died|node was (terminated|preempted|drained)|\bnode is dead\b", re.IGNORECASE)


@dataclass(frozen=True)
class Loss:
    """Why a trial lost its worker, in words; `counts` against the number of times that it is started again."""

    why: str
    counts: bool = True


def loss(written: str) -> Loss:
    """What the last failure in Ray's error file of a trial was."""
    last = _FAILURE.split(written)[-1]
    raised = _RAISED.findall(last)
    if raised:
        kind, message = raised[-1]
        if kind == "Leaving":
            return Loss(message, counts=False)
        return Loss(f"its machine failed it ({message})" if kind == "Lost" else message)
    return Loss("its node was lost" if _NODE.search(last) else "its worker was lost")


def line(number: int, why: str, folder: Path, unit: str) -> str:
    """What is told about a trial that goes on."""
    newest = checkpoints.newest(folder)
    begins = f"goes on from {unit} {checkpoints.budget_of(newest)}" if newest else "begins again"
    return f"trial {number}: {why}; it {begins}"
