"""At least 20,000 spoilt inputs of every kind that a user can give: each must end in a right result or in clear lines.

A run that was ended goes on: what was judged stands in ``progress.jsonl`` of the folder that `TUNE_LORA_FUZZ` names
(the files of what went wrong beside it), and is begun anew when it is complete.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
WORK = Path(os.environ.get("TUNE_LORA_FUZZ", Path(tempfile.gettempdir()) / "tune-lora-fuzz"))
os.environ["TUNE_LORA_CACHE"] = str(WORK / "cache")

from benchmarks import common  # noqa: E402
from benchmarks.fuzz import command_line, doors, guided, running, samples  # noqa: E402
from benchmarks.fuzz.kinds import KINDS  # noqa: E402

INPUTS, BATCH = (1_000, 50) if common.QUICK else (24_000, 200)
FIRST_SEED = 1_000
GUIDED = 100 if common.QUICK else 1_500
"""Inputs of each target that coverage chooses, where atheris is installed."""
COMMANDS = 2 if common.QUICK else 30
"""Inputs of each kind that are given to the program itself."""


def main() -> None:
    """Judges what has not been judged yet, and writes the figure."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    root = samples.shared(WORK / "data")
    progress, keep = WORK / "progress.jsonl", WORK / "bad"
    keep.mkdir(parents=True, exist_ok=True)
    doors.models()  # once, not in the process of every batch
    done = list(running.recorded(progress))
    known = {(one.kind, one.seed) for one in done}
    for kind, number in running.planned(INPUTS, BATCH, list(KINDS)):
        if (kind, FIRST_SEED + number) not in known:
            done.append(running.run_apart(kind, FIRST_SEED + number, BATCH, root, keep))
            _said(done[-1], progress)
    for kind in command_line.COMMANDS:
        if (f"{kind} (program)", FIRST_SEED) not in known:
            batch = running.run(kind, FIRST_SEED, COMMANDS, root, keep, partial(command_line.judge, kind))
            batch.kind = f"{kind} (program)"
            done.append(batch)
            _said(batch, progress)
    for target in guided.targets() if guided.is_installed() else ():
        if (f"{target} (guided)", FIRST_SEED) not in known:
            began, outcomes = time.monotonic(), guided.run(target, GUIDED)
            done.append(running.Batch(f"{target} (guided)", FIRST_SEED, outcomes, [], time.monotonic() - began))
            _said(done[-1], progress)
    common.write("fuzz_inputs", [figure(done)])
    progress.unlink()


def _said(batch: running.Batch, progress: Path) -> None:
    running.record(batch, progress)
    print(time.strftime("%H:%M:%S"), batch.kind, batch.seed, batch.outcomes, f"{batch.seconds} s", flush=True)
    for bad in batch.bad:
        print("   ", bad["what"], bad["files"], bad["said"].strip().splitlines()[-1:], file=sys.stderr, flush=True)


def figure(batches: Iterable[running.Batch]) -> dict[str, object]:
    """Bad outcomes among all inputs; the note says how many there were of each kind, and how they ended."""
    inputs, outcomes = Counter[str](), Counter[str]()
    for batch in batches:
        inputs[batch.kind] += batch.count
        outcomes.update(batch.outcomes)
    right, refused = outcomes.pop("right", 0), outcomes.pop("refused", 0)
    each = ", ".join(f"{kind} {count}" for kind, count in inputs.items())
    worse = ", ".join(f"{what} {count}" for what, count in sorted(outcomes.items())) or "none"
    return common.result(
        "fuzz_inputs",
        measured=sum(outcomes.values()),
        goal="<= 0",
        unit="bad outcomes",
        runs=sum(inputs.values()),
        note=f"{right} right results, {refused} refused in clear lines, other ends: {worse}. Inputs: {each}",
    )


if __name__ == "__main__":
    main()
