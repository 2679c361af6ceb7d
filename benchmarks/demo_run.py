"""What a newcomer waits for: the demo study after installation, its wall time, memory, trials and pruned share.

Memory is the sum of what each process of the run holds for itself plus its part of what is shared (PSS), sampled
twice a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from benchmarks import common
from tune_lora import store

STUDY = Path(__file__).parents[1] / "search_spaces" / "studies" / "demo.yaml"


def _held(process: psutil.Process) -> float:
    """GiB held by a process and all it started."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended while it was looked at
            continue
    return float(total / 2**30)


def _run(folder: Path) -> tuple[float, float]:
    """Minutes and peak GiB of one demo, with a cache and a results folder of its own."""
    document = yaml.safe_load(STUDY.read_text()) | {"results": str(folder / "results")}
    study = folder / "demo.yaml"
    study.write_text(yaml.safe_dump(document))
    environment = {**os.environ, "TUNE_LORA_CACHE": str(folder / "cache")}
    begun, peak = time.monotonic(), 0.0
    running = subprocess.Popen(
        [sys.executable, "-m", "tune_lora.cli", "run", str(study)], env=environment, stdout=subprocess.DEVNULL
    )
    watched = psutil.Process(running.pid)
    while running.poll() is None:
        time.sleep(0.5)
        try:
            peak = max(peak, _held(watched))
        except psutil.NoSuchProcess:
            break
    if running.wait() != 0:
        raise SystemExit(f"the demo ended with exit code {running.returncode}")
    return (time.monotonic() - begun) / 60, peak


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        minutes, peak = _run(Path(scratch))
        record = store.load(Path(scratch) / "results" / "demo")
    trials, pruned = len(record.trials), record.count("pruned")
    note = f"{trials} trials, {record.count('complete')} complete, {pruned} pruned; `tune-lora run`, empty cache"
    common.write(
        "demo_run",
        [
            common.result("demo_minutes", measured=round(minutes, 2), goal="<= 6", unit="minutes", runs=1, note=note),
            common.result("demo_memory", measured=round(peak, 2), goal="<= 6", unit="GiB", runs=1, note="peak, summed"),
            common.result("demo_trials", measured=trials, goal=">= 12", unit="trials", runs=1),
            common.result("demo_pruned_share", measured=round(pruned / trials, 3), goal=">= 0.333", unit="", runs=1),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
