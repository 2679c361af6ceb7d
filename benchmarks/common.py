"""Result objects of benchmarks: measured beside goal, and whether it is reached computed from the two."""

from __future__ import annotations

import json
import operator
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

QUICK = os.environ.get("BENCH") == "quick"
"""A short form: fewer runs, written to ``<name>.quick.json``, which is not committed."""
RESULTS = Path(__file__).parent / "results"

_DIRECTIONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def is_reached(measured: float | None, goal: str | None) -> bool | None:
    """Whether a figure meets its goal, such as ``>= 0.25``; None where either is absent.

    Raises:
        ValueError: the goal is not a direction and a number.
    """
    if measured is None or goal is None:
        return None
    found = re.fullmatch(r"(>=|<=|>|<)\s*(-?[0-9.]+(?:e-?[0-9]+)?)", goal)
    if found is None:
        raise ValueError(f"goal: got {goal!r}; must be one of {', '.join(_DIRECTIONS)} and a number, such as '>= 0.25'")
    return _DIRECTIONS[found[1]](measured, float(found[2]))


def result(
    name: str, *, measured: float | None, goal: str | None, unit: str, runs: int, note: str = ""
) -> dict[str, Any]:
    """One figure. `measured` is a median, a share or a ratio; None where the machine cannot run it."""
    return {
        "name": name,
        "measured": measured,
        "goal": goal,
        "ok": is_reached(measured, goal),
        "unit": unit,
        "runs": runs,
        "command": _command(),
        "machine": machine(),
        "note": note,
    }


def write(name: str, results: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the figures of one benchmark and prints a line for each; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'.quick' if QUICK else ''}.json"
    path.write_text(json.dumps(list(results), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for one in results:
        verdict = {True: "reached", False: "NOT reached", None: "no verdict"}[one["ok"]]
        print(f"{one['name']}: {one['measured']} {one['unit']} (goal {one['goal'] or 'none'}: {verdict})")
    return path


def data_folder() -> Path:
    """Where the public data is; ends the benchmark with a line where it is absent."""
    folder = Path(os.environ.get("TUNE_LORA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"no data in {folder}; set TUNE_LORA_DATA to the folder that holds fluent3d")
    return folder


def machine() -> str:
    """What this ran on: processor count, memory, Python, and the GPU where there is one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpus = len(os.sched_getaffinity(0))
    parts = [f"{cpus} CPU cores", f"{memory:.0f} GiB", f"{platform.system()} {platform.machine()}"]
    # Asked only of benchmarks that use torch: importing it here would be most of a short one's time.
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def _command() -> str:
    path = Path(sys.argv[0])
    script = path.parent.name if path.stem == "__main__" else path.stem
    return f"{'BENCH=quick ' if QUICK else ''}make bench-{script}"
