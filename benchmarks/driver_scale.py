"""What a driver costs a trial, beside stock Ray Tune, and how that grows with the study.

Trials do nothing: three reports of a number, by the same kind of class trainable on reused actors on both sides, four
at a time, each side in processes of its own, taking turns. Stock is OptunaSearch and ASHAScheduler as they come. The
driver's time is the CPU time of its process from Tune's first step to its last, all its threads: what workers do
between, or another program on the machine, is not in it. Waiting for the disk is not either; wall time is quoted.

Each run is kept in ``$TUNE_LORA_DRIVER_SCALE`` (default: ``build/driver_scale`` of the repository) and not run again,
so that the whole, which takes an hour, can be stopped and goes on. ``--samplers random tpe`` leaves out the slowest.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import common, noop_trainer
from benchmarks.noop_trainer import score

SMALL, LARGE = (100, 400) if common.QUICK else (1_000, 10_000)
SLOTS, EPOCHS = 4, 3
OURS = ("random", "tpe", "auto")
ROOT = Path(__file__).parents[1]
KEPT = Path(os.environ.get("TUNE_LORA_DRIVER_SCALE", ROOT / "build" / "driver_scale"))


@dataclass
class Clock:
    """A study's view that notes what the driver has spent, by how many trials had begun."""

    seen: list[tuple[int, float, float]] = field(default_factory=list)

    def look(self, trials: int) -> None:
        """One look: trials, CPU seconds of this process, wall seconds."""
        self.seen.append((trials, time.process_time(), time.perf_counter()))

    def update(self, record: Any, *, total: int, force: bool = False) -> None:
        """A look of a study's view."""
        del total
        if not force:  # what is forced is after the search
            self.look(len(record.trials))

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
        given = noop_trainer.study(
            folder, trials=trials, epochs=EPOCHS, slots=SLOTS,
            search={"sampler": sampler}, scheduler={"grace": 1, "eta": 3},
        )  # fmt: skip
        began = time.perf_counter()
        record = study.run(spec.from_mapping(given, "benchmark"), view=clock)
        whole = time.perf_counter() - began
        assert sum(trial.counts for trial in record.trials) == trials
    reports = sum(len(trial.history) for trial in record.trials) / trials
    return clock.spent() | {"reports": reports, "written_s": whole - (clock.seen[-1][2] - clock.seen[0][2])}


def _stock(trials: int) -> dict[str, float]:
    import optuna
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    clock = Clock()

    class Watch(tune.Callback):
        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002  # Ray's
            clock.look(len(trials))

    class Noop(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._rate, self._epoch = new_config["learning_rate"], 0
            return True

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            return {"score": score(self._rate, self._epoch), "budget": self._epoch, "done": self._epoch == EPOCHS}

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
            run_config=tune.RunConfig(name="stock", storage_path=folder, verbose=0, callbacks=[Watch()]),
        )
        results = tuner.fit()
        assert len(results) == trials
        reports = sum(one.metrics["budget"] for one in results) / trials
    ray.shutdown()
    return clock.spent() | {"reports": reports}


def _measure(side: str, trials: int, run: int = 0) -> dict[str, float]:
    """One run in a process of its own, with its peak memory."""
    kept = KEPT / f"{side}-{trials}-{run}.json"
    if not kept.exists():
        command = [sys.executable, "-m", "benchmarks.driver_scale", side, str(trials)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        KEPT.mkdir(parents=True, exist_ok=True)
        kept.write_text(output.splitlines()[-1])
    found: dict[str, float] = json.loads(kept.read_text())
    print(f"{side}, {trials} trials: {json.dumps(found)}", flush=True)
    return found


def _reports(runs: list[dict[str, float]]) -> str:
    return f"{statistics.mean(one['reports'] for one in runs):.2f}"


def _told(found: dict[str, float]) -> str:
    return f"{found['cpu_ms']:.1f} ms of CPU and {found['wall_ms']:.0f} ms of wall time a trial"


def _ratio(small: list[dict[str, float]], stock: list[dict[str, float]]) -> dict[str, Any]:
    ours, theirs = _median(small), _median(stock)
    return common.result(
        "driver_1000_ratio",
        measured=round(ours["cpu_ms"] / theirs["cpu_ms"], 3),
        goal="<= 0.5",
        unit="CPU time of the driver a trial, ours / stock",
        runs=len(small),
        note=f"{SMALL} trials, TPE on both sides; ours {_told(ours)}, stock {_told(theirs)}; reports a trial: "
        f"ours {_reports(small)}, stock {_reports(stock)}",
    )


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in runs) for name in ("cpu_ms", "wall_ms")}


def _grown(
    small: dict[str, dict[str, float]], large: dict[str, dict[str, float]], left_out: list[str]
) -> list[dict[str, Any]]:
    growth = {sampler: of["cpu_ms"] / small[sampler]["cpu_ms"] for sampler, of in large.items()}
    beside = [f"{sampler}: {growth[sampler]:.2f}, {_told(large[sampler])}" for sampler in large]
    beside += [f"{sampler}: not run" for sampler in left_out]
    return [
        common.result(
            "driver_10000_growth",
            measured=round(growth["random"], 2),
            goal="<= 1.5",
            unit=f"CPU time a trial at {LARGE} trials / at {SMALL}",
            runs=1,
            note=f"random sampler; by sampler, growth and cost at {LARGE}: {'; '.join(beside)}",
        ),
        common.result(
            "driver_10000_memory",
            measured=round(max(one["peak_gib"] for one in large.values()), 2),
            goal="< 1.5",
            unit="GiB, peak of the driver's process",
            runs=1,
            note=f"{LARGE} trials; the largest of {', '.join(large)}; tables, figures and report included",
        ),
    ]


def main(samplers: Sequence[str] = OURS) -> None:
    """`samplers`: those to run with many trials, ``random`` among them."""
    stock, tpe = [], []
    for run in range(1 if common.QUICK else 3):
        stock.append(_measure("stock", SMALL, run))
        tpe.append(_measure("tpe", SMALL, run))
    small = {sampler: _median(tpe) if sampler == "tpe" else _measure(sampler, SMALL) for sampler in samplers}
    large = {sampler: _measure(sampler, LARGE) for sampler in samplers}
    left_out = [sampler for sampler in OURS if sampler not in samplers]
    common.write("driver_scale", [_ratio(tpe, stock), *_grown(small, large, left_out)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--samplers"]:
        main(sys.argv[2:])
    elif len(sys.argv) == 3:
        side, trials = sys.argv[1], int(sys.argv[2])
        found = _stock(trials) if side == "stock" else _ours(trials, side)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found | {"peak_gib": peak}))
    else:
        main()
