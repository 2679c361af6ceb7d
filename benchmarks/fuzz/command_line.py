"""The same inputs through the program itself: its exit code, and what it writes on stderr."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.fuzz.judging import REFUSED, RIGHT, Outcome, content, unclear_in

ROOT = Path(__file__).parents[2]
SECONDS = 120
MEMORY = 6 << 30
"""Bytes of address space."""


def _arguments(folder: Path) -> list[str]:
    given = json.loads((folder / "arguments.json").read_bytes())
    return ["validate", "study.yaml", *(word for one in given for word in ("--set", one.replace("\0", "")))]


COMMANDS: Mapping[str, Callable[[Path], Sequence[str]]] = {
    "study": lambda _: ["validate", "study.yaml"],
    "space": lambda _: ["sample", "./space.yaml", "-n", "3", "--format", "jsonl"],
    "set": _arguments,
    "configuration": lambda _: ["train", "--config", "best_config.yaml", "--output", "trained", "--seed", "0"],
}
"""What a user types, by kind of input."""


def judge(kind: str, folder: Path) -> Outcome:
    """Runs the program in a folder of files and says what came of it."""
    before = content(folder)
    try:
        ended = _run(COMMANDS[kind](folder), folder)
    except subprocess.TimeoutExpired:
        return Outcome("hang", f"more than {SECONDS} s")
    if ended.returncode == 0:
        return Outcome("warning", ended.stderr) if ended.stderr.strip() else Outcome(RIGHT)
    if wrong := _unclear(ended, folder):
        return Outcome("unclear", wrong)
    after = content(folder)
    if after != before:
        return Outcome("written", f"left {sorted(after.keys() - before.keys())} after: {ended.stderr}")
    return Outcome(REFUSED, ended.stderr)


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tune_lora.cli", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )


def _unclear(ended: subprocess.CompletedProcess[str], folder: Path) -> str:
    lines = ended.stderr.splitlines()
    if ended.returncode not in (1, 2):
        return f"exit code {ended.returncode}: {ended.stderr[-1000:]}"
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if not told or len(told) < len(lines):
        return f"exit code {ended.returncode}, but on stderr: {ended.stderr[-1000:]}"
    return next((wrong for line in told if (wrong := unclear_in(line, folder))), "")
