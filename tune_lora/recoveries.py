"""What a lost worker is called in the summary: pure, from what Ray wrote down about a trial that it starts again."""

from __future__ import annotations

import re
from pathlib import Path

from trainables import checkpoints, incarnations

_FAILURE = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)
_RAISED = re.compile(r"^\S*\b(Preempted|Lost): (.*)$", re.MULTILINE)
_NODE = re.compile(r"\bnode (has )?died|node was (terminated|preempted|drained)|\bnode is dead\b", re.IGNORECASE)


def loss(written: str) -> str:
    """What the last failure in Ray's error file of a trial was, in words."""
    last = _FAILURE.split(written)[-1]
    raised = _RAISED.findall(last)
    if raised:
        kind, message = raised[-1]
        return f"its machine failed it ({message})" if kind == "Lost" else message
    return "its node was lost" if _NODE.search(last) else "its worker was lost"


def line(number: int, why: str, folder: Path, unit: str) -> str:
    """What is told about a trial that goes on, and on which machine it was."""
    newest, was = checkpoints.newest(folder), incarnations.standing(folder)
    where = f" on {was.host}" if was else ""
    begins = f"goes on from {unit} {checkpoints.budget_of(newest)}" if newest else "begins again"
    return f"trial {number}{where}: {why}; it {begins}"
