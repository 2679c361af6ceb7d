"""How busy 64 slots are with epochs of one second: a trainer that sleeps, ASHA, and as many trials as fit.

A slot is busy while its trial is inside an epoch, by the trainer's own clock; what passes between two epochs, and
between two trials, is lost. Counted from the moment all slots are filled, which is when as many workers as slots have
begun their first trial, to the start of the last trial.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import chain, pairwise

from benchmarks import common, noop_trainer

SLOTS, TRIALS = (8, 40) if common.QUICK else (64, 640)
EPOCHS, GRACE, SECONDS = 27, 3, 1.0


@dataclass(frozen=True)
class Ran:
    """A trial's worker, and when its epochs began and ended."""

    worker: int
    spans: list[tuple[float, float]]


def _study() -> list[Ran]:
    from tune_lora import spec, study

    with tempfile.TemporaryDirectory() as folder:
        given = noop_trainer.study(
            folder, trials=TRIALS, epochs=EPOCHS, slots=SLOTS, seconds=SECONDS,
            search={"sampler": "tpe"}, scheduler={"grace": GRACE, "eta": 3},
        )  # fmt: skip
        record = study.run(spec.from_mapping(given, "benchmark"))
    assert sum(trial.counts for trial in record.trials) == TRIALS
    told = [list(trial.history.values()) for trial in record.trials]
    return [Ran(int(of[0]["worker"]), [(one["began"], one["ended"]) for one in of]) for of in told]


def busy_share(trials: list[Ran], slots: int) -> tuple[float, float]:
    """Share of slot seconds that are inside an epoch, and the seconds looked at."""
    by_start = sorted(trials, key=lambda one: one.spans[0][0])
    first = {one.worker: one.spans[0][0] for one in reversed(by_start)}
    begin, end = sorted(first.values())[slots - 1], by_start[-1].spans[0][0]
    spans = chain.from_iterable(one.spans for one in trials)
    inside = sum(max(0.0, min(until, end) - max(since, begin)) for since, until in spans)
    return inside / (slots * (end - begin)), end - begin


def main() -> None:
    trials = _study()
    share, seconds = busy_share(trials, SLOTS)
    gaps = [later[0] - earlier[1] for one in trials for earlier, later in pairwise(one.spans)]
    epochs = sum(len(one.spans) for one in trials) / len(trials)
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
                note=f"{SLOTS} slots, {TRIALS} trials of {GRACE} to {EPOCHS} epochs of {SECONDS:g} s, "
                f"{epochs:.1f} on average, over {seconds:.0f} s; "
                f"{between:.0f} ms between two epochs of a trial",
            )
        ],
    )


if __name__ == "__main__":
    main()
