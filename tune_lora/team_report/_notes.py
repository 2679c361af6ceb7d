"""What people wrote into a report and said about it, carried over into the one that takes its place. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_lora.team_report._parts import Notes

_SAID = ("discussionThreads", "authors")
"""Comments, and who else is named as an author."""


def with_notes(made: Mapping[str, Any], earlier: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """A report's content with what people wrote into an earlier one: all below the heading of the notes, as it is
    there, and the comments."""
    kept = list(earlier.get("blocks", ()))
    places = (at for at, one in enumerate(kept) if one.get("type") == "heading" and _text(one) == notes.heading)
    written = kept[next(places, len(kept)) + 1 :]
    if written and _text(written[0]) == notes.line:
        written = written[1:]
    blocks = [*made["blocks"][:-1], *written] if written else made["blocks"]  # made ends in a line to write on
    said = {name: earlier[name] for name in _SAID if name in earlier}
    return {**made, **said, "blocks": blocks}


def _text(block: Mapping[str, Any]) -> str:
    return "".join(str(one.get("text", "")) for one in block.get("children", ()) if isinstance(one, Mapping))
