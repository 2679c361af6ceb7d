"""What the tuner itself costs per trial, beside stock Ray Tune (OptunaSearch + ASHA, function trainable).

The trial does nothing: three reports of a number. Forty trials, two at a time, on one machine, each side in processes
of its own, taking turns. The start of Ray is left out on both sides; everything else from the first suggestion to the
last result counts.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common

TRIALS = 40
EPOCHS = 3
SPACE = {
    "name": "noop",
    "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}},
    "fixed": {"max_train_epochs": EPOCHS},
}


def _ours(trials: int) -> float:
    from cluster.connect import session
    from tune_lora import placing, spec, store, tuning
    from tune_lora.build import plan
    from tune_lora.study import NoView, _open
    from tune_lora.tracking import NoTracker

    with tempfile.TemporaryDirectory() as folder:
        chosen = spec.from_mapping(
            {
                "name": "noop",
                "trainer": "curve",
                "space": SPACE,
                "budget": {"n_trials": trials, "plateau": None},
                "scheduler": {"grace": 1, "eta": 3},
                "resources": {"cpu": 1, "concurrent": 2},
                "tracking": {"wandb": "off"},
                "results": folder,
            },
            "benchmark",
        )
        ready = plan(chosen)
        chosen.folder.mkdir(parents=True)
        study = _open(chosen)
        with session() as capacity:
            placed = placing.place(chosen, capacity, NoView())
            begun = time.perf_counter()
            tuning.tune_study(study, ready, placed, trials, tracker=NoTracker(), view=NoView())
            spent = time.perf_counter() - begun
        assert len(store.read(study).trials) == trials
    return spent


def _noop(config: dict[str, Any]) -> None:
    from ray import tune

    for epoch in range(1, EPOCHS + 1):
        tune.report({"score": config["learning_rate"] + 1 / epoch, "budget": epoch})


def _stock(trials: int) -> float:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            _noop,
            param_space={"learning_rate": tune.loguniform(1e-5, 1e-1)},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="min",
                search_alg=OptunaSearch(seed=0),
                scheduler=ASHAScheduler(time_attr="budget", grace_period=1, reduction_factor=3, max_t=EPOCHS),
                num_samples=trials,
                max_concurrent_trials=2,
            ),
            run_config=tune.RunConfig(name="stock", storage_path=folder, verbose=0),
        )
        begun = time.perf_counter()
        results = tuner.fit()
        spent = time.perf_counter() - begun
        assert len(results) == trials
    ray.shutdown()
    return spent


def _measure(side: str, trials: int) -> float:
    """Seconds of one run, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.trial_overhead", side, str(trials)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    return float(json.loads(output.splitlines()[-1])["seconds"])


def main() -> None:
    runs, trials = (1, 8) if common.QUICK else (3, TRIALS)
    seconds: dict[str, list[float]] = {"stock": [], "ours": []}
    for _ in range(runs):
        for side, spent in seconds.items():
            spent.append(_measure(side, trials))
            print(f"{side}: {spent[-1]:.1f} s for {trials} trials", flush=True)
    ours, stock = (statistics.median(seconds[side]) for side in ("ours", "stock"))
    common.write(
        "trial_overhead",
        [
            common.result(
                "trial_overhead_ratio",
                measured=round(ours / stock, 3),
                goal="<= 0.333",
                unit="ours / stock",
                runs=runs,
                note=f"ours {ours / trials:.2f} s, stock {stock / trials:.2f} s a trial; {trials} trials, two at once",
            )
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps({"seconds": {"ours": _ours, "stock": _stock}[sys.argv[1]](int(sys.argv[2]))}))
    else:
        main()
