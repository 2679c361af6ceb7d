"""What a driver costs a trial, beside stock Ray Tune, and how that grows with the study.

Trials do nothing: three reports of a number, by the same kind of class trainable on reused actors on both sides, four
at a time, each side in processes of its own, taking turns. Stock is OptunaSearch and ASHAScheduler as they come. The
driver's time is the CPU time of its process from the first trial to the last, all its threads: what workers do between,
or another program on the machine, is not in it. Waiting for the disk is not either; wall time is quoted.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import common

SMALL, LARGE = (100, 400) if common.QUICK else (1_000, 10_000)
SLOTS, EPOCHS = 4, 3
OURS = ("random", "tpe", "auto")


@dataclass
class Clock:
    """A study's view that notes what the driver has spent, by how many trials had begun."""

    seen: list[tuple[int, float, float]] = field(default_factory=list)

    def update(self, record: Any, *, total: int, force: bool = False) -> None:
        """One look: trials, CPU seconds of this process, wall seconds."""
        del total
        if not force:  # what is forced is after the search
            self.seen.append((len(record.trials), time.process_time(), time.perf_counter()))

    def note(self, line: str) -> None:
        """What a study says is not looked at."""

    def spent(self) -> dict[str, float]:
        """Milliseconds a trial between the first look and the last."""
        (first, cpu, wall), (last, cpu_then, wall_then) = self.seen[0], self.seen[-1]
        trials = last - first
        return {"cpu_ms": 1e3 * (cpu_then - cpu) / trials, "wall_ms": 1e3 * (wall_then - wall) / trials}


def _ours(trials: int, sampler: str) -> dict[str, float]:
    from tune_lora import spec, study

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "name": "noop",
            "trainable": "benchmarks.noop_trainer:train",
            "space": {
                "name": "noop",
                "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}},
            },
            "custom": {"horizon": EPOCHS},
            "search": {"sampler": sampler},
            "budget": {"n_trials": trials, "plateau": None},
            "scheduler": {"grace": 1, "eta": 3},
            "resources": {"cpu": 2 / SLOTS, "concurrent": SLOTS},
            "tracking": {"wandb": "off"},
            "results": folder,
        }
        began = time.perf_counter()
        record = study.run(spec.from_mapping(given, "benchmark"), view=clock)
        whole = time.perf_counter() - began
        assert sum(trial.counts for trial in record.trials) == trials
    return clock.spent() | {"written_s": whole - (clock.seen[-1][2] - clock.seen[0][2])}


def _stock(trials: int) -> dict[str, float]:
    import optuna
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    class Noop(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._rate, self._epoch = new_config["learning_rate"], 0
            return True

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            return {"score": self._rate + 1 / self._epoch, "budget": self._epoch, "done": self._epoch == EPOCHS}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing to save."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Nothing to load."""

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(Noop, {"cpu": 2 / SLOTS}),
            param_space={"learning_rate": tune.loguniform(1e-5, 1e-1)},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="min",
                search_alg=OptunaSearch(seed=0),
                scheduler=ASHAScheduler(time_attr="budget", grace_period=1, reduction_factor=3, max_t=EPOCHS),
                num_samples=trials,
                max_concurrent_trials=SLOTS,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="stock", storage_path=folder, verbose=0),
        )
        cpu, wall = time.process_time(), time.perf_counter()
        results = tuner.fit()
        spent = {"cpu_ms": 1e3 * (time.process_time() - cpu), "wall_ms": 1e3 * (time.perf_counter() - wall)}
        assert len(results) == trials
    ray.shutdown()
    return {name: value / trials for name, value in spent.items()}


def _measure(side: str, trials: int) -> dict[str, float]:
    """One run in a process of its own, with its peak memory."""
    command = [sys.executable, "-m", "benchmarks.driver_scale", side, str(trials)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    print(f"{side}, {trials} trials: {json.dumps(found)}", flush=True)
    return found


def _told(found: dict[str, float]) -> str:
    return f"{found['cpu_ms']:.1f} ms of CPU and {found['wall_ms']:.0f} ms of wall time a trial"


def main() -> None:
    runs = 1 if common.QUICK else 3
    stock, small = [], []
    for _ in range(runs):
        stock.append(_measure("stock", SMALL))
        small.append(_measure("tpe", SMALL))
    large = {sampler: _measure(sampler, LARGE) for sampler in OURS}
    at_small = {sampler: _measure(sampler, SMALL) for sampler in OURS if sampler != "tpe"}
    ours, theirs = (statistics.median(one["cpu_ms"] for one in side) for side in (small, stock))
    at_small["tpe"] = {"cpu_ms": ours, "wall_ms": statistics.median(one["wall_ms"] for one in small)}
    growth = {sampler: large[sampler]["cpu_ms"] / at_small[sampler]["cpu_ms"] for sampler in OURS}
    beside = "; ".join(f"{sampler}: {growth[sampler]:.2f}, {_told(large[sampler])}" for sampler in OURS)
    common.write(
        "driver_scale",
        [
            common.result(
                "driver_1000_ratio",
                measured=round(ours / theirs, 3),
                goal="<= 0.5",
                unit="CPU time of the driver a trial, ours / stock",
                runs=runs,
                note=f"{SMALL} trials, TPE on both sides; ours {_told(at_small['tpe'])}, stock "
                f"{theirs:.1f} ms and {statistics.median(one['wall_ms'] for one in stock):.0f} ms",
            ),
            common.result(
                "driver_10000_growth",
                measured=round(growth["random"], 2),
                goal="<= 1.5",
                unit=f"CPU time a trial at {LARGE} trials / at {SMALL}",
                runs=1,
                note=f"random sampler; by sampler, growth and cost at {LARGE}: {beside}",
            ),
            common.result(
                "driver_10000_memory",
                measured=round(max(one["peak_gib"] for one in large.values()), 2),
                goal="< 1.5",
                unit="GiB, peak of the driver's process",
                runs=1,
                note=f"{LARGE} trials; the largest of {', '.join(OURS)}; tables, figures and report included",
            ),
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        side, trials = sys.argv[1], int(sys.argv[2])
        found = _stock(trials) if side == "stock" else _ours(trials, side)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found | {"peak_gib": peak}))
    else:
        main()
