"""How long a suggestion takes when a study has 500 trials, for each of the two samplers that learn."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import optuna

from benchmarks.common import QUICK, result, write
from search_spaces.space import Space
from tune_lora.searcher import StudySearcher

TRIALS = 60 if QUICK else 500
SUGGESTIONS = 5 if QUICK else 20
RUNGS = (3, 6)


def measure(sampler: str) -> list[float]:
    """Seconds of each suggestion, the study's reading included, after `TRIALS` trials of which a third completed."""
    space, scores = Space.load("lora_v2_1"), np.random.default_rng(0)
    study = optuna.create_study()
    searcher = StudySearcher(
        study, space, direction="minimize", n_trials_total=TRIALS + SUGGESTIONS + 1, sampler="random",
        trial_folder=lambda number: Path("lab/trials") / str(number),
    )  # fmt: skip
    for index in range(TRIALS):
        _train(searcher, str(index), index % 3 == 0, float(scores.uniform()))
    learner = StudySearcher(
        study, space, direction="minimize", n_trials_total=TRIALS + SUGGESTIONS + 1, sampler=sampler,
        trial_folder=lambda number: Path("lab/trials") / str(number),
        horizon=lambda params: int(params["max_train_epochs"]),
    )  # fmt: skip
    taken = [_train(learner, f"timed{index}", False, float(scores.uniform())) for index in range(SUGGESTIONS)]
    return taken[1:]  # the first takes in all that was stored


def _train(searcher: StudySearcher, name: str, to_the_end: bool, score: float) -> float:
    """One trial; the seconds that its suggestion took."""
    started = time.perf_counter()
    config = searcher.suggest(name)
    taken = time.perf_counter() - started
    assert isinstance(config, dict)
    for budget in RUNGS:
        searcher.on_trial_result(name, {"budget": budget, "score": score + 1 / budget, "metrics": {"val_loss": score}})
    horizon = config["params"]["max_train_epochs"]
    last = {"budget": horizon if to_the_end else RUNGS[-1] + 1, "score": score, "metrics": {}, "final": to_the_end}
    searcher.on_trial_complete(name, last)
    return taken


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seconds = {sampler: measure(sampler) for sampler in ("predictive", "tpe")}
    write(
        "search_suggest",
        [
            result(
                "search_suggest_seconds" if sampler == "predictive" else "search_suggest_seconds_tpe",
                measured=round(max(taken), 3),
                goal="< 2",
                unit="s, the longest",
                runs=len(taken),
                note=f"`{sampler}` on lora_v2_1 with {TRIALS} trials, a third of them complete, curves of two rungs; "
                f"the median is {statistics.median(taken):.2f} s",
            )
            for sampler, taken in seconds.items()
        ],
    )
