"""Makes docs/benchmarks.md from benchmarks/results/*.json: ``python -m benchmarks.render``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
HEAD = """\
# Measured figures

Made by `make bench` from `benchmarks/results/*.json`; do not edit. Each figure is a median, a share, or a ratio of
things run side by side in one run; whether a goal is reached is computed from the two numbers.
"""
EMPTY = "\nNothing has been measured yet.\n"
_VERDICTS = {True: "yes", False: "**no**", None: "-"}


def load(folder: Path) -> list[dict[str, Any]]:
    """All committed figures, in order of file and place; those of ``BENCH=quick`` are left out."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        if not path.name.endswith(".quick.json"):
            content = json.loads(path.read_text("utf-8"))
            found += content if isinstance(content, list) else [content]
    return found


def page(results: Iterable[Mapping[str, Any]]) -> str:
    """The page in Markdown: a table of all figures, then the command, machine and note of each."""
    results = list(results)
    if not results:
        return HEAD + EMPTY
    rows = [
        f"| `{one['name']}` | {_number(one['measured'])} | {one['goal'] or '-'} | {_VERDICTS[one['ok']]} "
        f"| {one['unit']} |"
        for one in results
    ]
    table = ["", "| figure | measured | goal | reached | unit |", "|---|---|---|---|---|", *rows, ""]
    return HEAD + "\n".join(table + [_details(one) for one in results])


def _details(one: Mapping[str, Any]) -> str:
    runs = f"{one['runs']} run{'' if one['runs'] == 1 else 's'}"
    note = f"\n\n{one['note'][:1].upper()}{one['note'][1:]}." if one["note"] else ""
    return f"\n## `{one['name']}`\n\n`{one['command']}`, {runs}, on {one['machine']}.{note}\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    PAGE.write_text(page(load(RESULTS)), encoding="utf-8")
    print(PAGE)
