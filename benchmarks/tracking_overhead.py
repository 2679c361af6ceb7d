"""What tracking costs a study, beside no tracking, and what stock Ray Tune's own callback costs beside none.

Trials train nothing: an epoch is a pause, and a report of a few numbers. Both are tracked offline, so that no server's
speed is in it; what an online run adds happens in the tracking process as well. Each run is in processes of its own,
with and without tracking taking turns; a ratio is of two runs that followed each other. The clock runs from when every
slot has reported, since what workers take to start differs by more than what is measured, to the end of the last trial,
the end of tracking included. The tracking process starts while the workers do: its CPU time is told, from its first
moment. Processes are counted on the driver's machine.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import common, noop_trainer

TRIALS, STOCK_TRIALS, EPOCHS = (16, 8, 50) if common.QUICK else (200, 24, 50)
RUNS = 1 if common.QUICK else 2
SLOTS, EPOCH_SECONDS = 4, 0.05
LOOK_SECONDS = 2.0
TRACKERS = ("tracking_process", "wandb-core", "_WandbLoggingActor", "_QueueActor")
"""What is in the command of a process that is there for tracking alone."""


@dataclass
class Clock:
    """Begins when as many trials as there are slots have reported. A study's view, and a callback's counter."""

    begun: float = 0.0
    cpu: float = 0.0
    _seen: set[Any] = field(default_factory=set)

    def saw(self, trial: Any) -> None:
        """A trial has reported."""
        self._seen.add(trial)
        if not self.begun and len(self._seen) >= SLOTS:
            self.begun, self.cpu = time.perf_counter(), time.process_time()

    def update(self, record: Any, *, total: int, force: bool = False) -> None:
        """One look at the study."""
        del total, force
        if not self.begun:
            for trial in record.trials:
                if trial.history:
                    self.saw(trial.number)

    def note(self, line: str) -> None:
        """What a study says is not looked at."""


@dataclass
class Census:
    """The most processes at once that track, looked for now and then while a run lasts."""

    most: int = 0
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Census:
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _count(self) -> None:
        import psutil

        while not self._is_over.wait(LOOK_SECONDS):
            commands = []
            for one in psutil.Process().children(recursive=True):
                try:
                    commands.append(" ".join(one.cmdline()))
                except psutil.Error:  # it has just ended
                    continue
            self.most = max(self.most, sum(any(name in command for name in TRACKERS) for command in commands))


def _ours(trials: int, mode: str) -> dict[str, float]:
    from cluster.connect import session
    from tune_lora import placing, spec, store, tuning
    from tune_lora.build import plan
    from tune_lora.study import NoView, _open, _tracked

    clock = Clock()

    with tempfile.TemporaryDirectory() as folder:
        given = noop_trainer.study(
            folder, trials=trials, epochs=EPOCHS, slots=SLOTS, seconds=EPOCH_SECONDS,
            search={"sampler": "random"}, scheduler={"name": "none"}, tracking={"wandb": mode},
        )  # fmt: skip
        chosen = spec.from_mapping(given, "benchmark")
        ready = plan(chosen)
        chosen.folder.mkdir(parents=True)
        study = _open(chosen)
        with session() as capacity:
            placed = placing.place(chosen, capacity, NoView())

            def search() -> None:
                with _tracked(study, chosen, NoView()) as tracker:
                    tuning.tune_study(study, ready, placed, trials, tracker=tracker, view=clock)

            found = _timed(search, clock)
        assert len(store.read(study).trials) == trials
        runs = len(list((chosen.folder / "logs" / "wandb").glob("offline-run-*")))
        assert runs == (trials if mode == "offline" else 0), runs
    return found


def _stock(trials: int, mode: str) -> dict[str, float]:
    import ray
    from ray import tune
    from ray.air.integrations.wandb import WandbLoggerCallback

    class Noop(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._rate, self._epoch = new_config["learning_rate"], 0
            return True

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            time.sleep(EPOCH_SECONDS)
            return {"score": self._rate + 1 / self._epoch, "budget": self._epoch, "done": self._epoch == EPOCHS}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing to save."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Nothing to load."""

    clock = Clock()

    class Reports(tune.Callback):
        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            del iteration, trials, result, info
            clock.saw(trial.trial_id)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    with tempfile.TemporaryDirectory() as folder:
        wandb = [WandbLoggerCallback(project="noop", dir=folder)] if mode == "offline" else []
        tuner = tune.Tuner(
            tune.with_resources(Noop, {"cpu": 2 / SLOTS}),
            param_space={"learning_rate": tune.loguniform(1e-5, 1e-1)},
            tune_config=tune.TuneConfig(
                metric="score", mode="min", num_samples=trials, max_concurrent_trials=SLOTS, reuse_actors=True
            ),
            run_config=tune.RunConfig(name="stock", storage_path=folder, verbose=0, callbacks=[Reports(), *wandb]),
        )
        found = _timed(tuner.fit, clock)
    ray.shutdown()
    return found


def _timed(work: Callable[[], Any], clock: Clock) -> dict[str, float]:
    """Wall seconds, CPU seconds of this process and of what it started and waited for, and how many track."""
    children = _of_children()
    with Census() as census:
        work()
        wall, cpu = time.perf_counter() - clock.begun, time.process_time() - clock.cpu
    assert clock.begun, f"fewer than {SLOTS} trials"
    return {
        "wall_s": wall,
        "driver_cpu_s": cpu,
        "children_cpu_s": _of_children() - children,
        "processes": census.most,
    }


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _measure(side: str, mode: str, trials: int) -> dict[str, float]:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.tracking_overhead", side, mode, str(trials)]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "RAY_worker_niceness": "0"}
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1], env=environment
    ).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    print(f"{side}, {mode}, {trials} trials: {json.dumps(found)}", flush=True)
    return found


def _pairs(side: str, trials: int, runs: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Runs without and with tracking; who goes first takes turns."""
    found = []
    for index in range(runs):
        order = ("off", "offline") if index % 2 == 0 else ("offline", "off")
        measured = {mode: _measure(side, mode, trials) for mode in order}
        found.append((measured["off"], measured["offline"]))
    return found


def _percent(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> float:
    return 100 * (statistics.median(tracked["wall_s"] / plain["wall_s"] for plain, tracked in pairs) - 1)


def _told(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> str:
    each = ", ".join(f"{plain['wall_s']:.1f} and {tracked['wall_s']:.1f} s" for plain, tracked in pairs)
    driver = statistics.median(tracked["driver_cpu_s"] - plain["driver_cpu_s"] for plain, tracked in pairs)
    return f"without and with tracking {each}; {driver:+.1f} s of CPU time in the driver"


def main() -> None:
    ours = _pairs("ours", TRIALS, RUNS)
    stock = _pairs("stock", STOCK_TRIALS, 1)
    beside = statistics.median(tracked["children_cpu_s"] for _, tracked in ours)
    shape = f"{EPOCHS} epochs of {EPOCH_SECONDS * 1e3:.0f} ms, {SLOTS} at once"
    common.write(
        "tracking_overhead",
        [
            common.result(
                "tracking_overhead",
                measured=round(_percent(ours), 2),
                goal="<= 3",
                unit="% of the wall time of the study",
                runs=len(ours),
                note=f"{TRIALS} trials of {shape}; {_told(ours)}, {beside:.1f} s in the tracking process",
            ),
            common.result(
                "tracking_processes",
                measured=max(tracked["processes"] for _, tracked in ours),
                goal="<= 2",
                unit="processes on the driver",
                runs=len(ours),
                note="the tracking process and wandb's own",
            ),
            common.result(
                "tracking_overhead_stock",
                measured=round(_percent(stock), 2),
                goal=None,
                unit="% of the wall time of the study",
                runs=len(stock),
                note=f"WandbLoggerCallback on stock Tune, {STOCK_TRIALS} trials of {shape}; {_told(stock)}; up to "
                f"{max(tracked['processes'] for _, tracked in stock):.0f} processes at once",
            ),
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        side, mode, trials = sys.argv[1], sys.argv[2], int(sys.argv[3])
        print(json.dumps({"ours": _ours, "stock": _stock}[side](trials, mode)))
    else:
        main()
