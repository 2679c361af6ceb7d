"""How busy 64 slots are with epochs of one second: a trainer that sleeps, ASHA, and as many trials as fit.

A slot is busy while its trial is inside an epoch, by the trainer's own clock; what passes between two epochs, and
between two trials, is lost. Counted from the moment all slots have begun to the start of the last trial.
"""

from __future__ import annotations

import tempfile
from itertools import chain, pairwise

from benchmarks import common

SLOTS, TRIALS = (8, 40) if common.QUICK else (64, 640)
EPOCHS, SECONDS = 9, 1.0

Spans = list[tuple[float, float]]


def _study() -> list[Spans]:
    """The epochs of each trial: when they began and ended."""
    from tune_lora import spec, study

    with tempfile.TemporaryDirectory() as folder:
        given = {
            "name": "busy",
            "trainable": "benchmarks.noop_trainer:train",
            "custom": {"horizon": EPOCHS},
            "space": {
                "name": "sleep",
                "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}},
                "fixed": {"seconds": SECONDS},
            },
            "search": {"sampler": "tpe"},
            "budget": {"n_trials": TRIALS, "plateau": None},
            "scheduler": {"grace": 1, "eta": 3},
            "resources": {"cpu": 2 / SLOTS, "concurrent": SLOTS},
            "tracking": {"wandb": "off"},
            "results": folder,
        }
        record = study.run(spec.from_mapping(given, "benchmark"))
    assert sum(trial.counts for trial in record.trials) == TRIALS
    return [[(told["began"], told["ended"]) for told in trial.history.values()] for trial in record.trials]


def busy_share(trials: list[Spans], slots: int) -> tuple[float, float]:
    """Share of slot seconds that are inside an epoch, and the seconds looked at."""
    starts = sorted(spans[0][0] for spans in trials if spans)
    begin, end = starts[slots - 1], starts[-1]
    inside = sum(max(0.0, min(until, end) - max(since, begin)) for since, until in chain.from_iterable(trials))
    return inside / (slots * (end - begin)), end - begin


def main() -> None:
    trials = _study()
    share, seconds = busy_share(trials, SLOTS)
    gaps = [later[0] - earlier[1] for spans in trials for earlier, later in pairwise(spans)]
    between = 1e3 * sum(gaps) / max(1, len(gaps))
    common.write(
        "slots_busy",
        [
            common.result(
                "slots_busy",
                measured=round(share, 3),
                goal=">= 0.95",
                unit="share of the slots' time inside an epoch",
                runs=1,
                note=f"{SLOTS} slots, {TRIALS} trials of up to {EPOCHS} epochs of {SECONDS:g} s, over {seconds:.0f} s; "
                f"{between:.0f} ms between two epochs of a trial",
            )
        ],
    )


if __name__ == "__main__":
    main()
