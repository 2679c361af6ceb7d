"""Which trial gets a free worker, and that all slots come to be used."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial

from tune_lora import spec as specs
from tune_lora import study
from tune_lora.scheduler.queue import PATIENCE_SECONDS, Queue


@dataclass
class Waiting:
    """What the queue looks at of a Tune trial."""

    trial_id: str
    status: str = Trial.PENDING


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def named(queue: Queue, *trials: Any) -> str | None:
    found = queue.of(trials)
    return None if found is None else found.trial_id


def test_a_trial_for_which_nothing_is_asked_yet_comes_first(clock: Clock) -> None:
    queue, first, second = Queue(clock), Waiting("a_00001"), Waiting("a_00002")
    assert named(queue, first) == "a_00001"
    assert named(queue, first, second) == "a_00002", "a worker is on its way to the first"
    assert named(queue, first, second) is None, "one is on its way to each"


def test_new_trials_are_taken_in_the_order_in_which_they_were_suggested(clock: Clock) -> None:
    queue, trials = Queue(clock), [Waiting(f"a_{number:05}") for number in (3, 1, 2)]
    assert [named(queue, *trials) for _ in range(4)] == ["a_00001", "a_00002", "a_00003", None]


def test_who_has_waited_too_long_takes_any_worker(clock: Clock) -> None:
    queue, first, second = Queue(clock), Waiting("a_00001"), Waiting("a_00002")
    named(queue, first)
    clock.now = PATIENCE_SECONDS / 2
    named(queue, first, second)
    clock.now = PATIENCE_SECONDS + 1
    assert named(queue, first, second) == "a_00001"
    assert named(queue, second) is None, "the first runs by now, and the second has not waited as long"


def test_a_trial_that_waits_again_is_new_again(clock: Clock) -> None:
    queue, trial = Queue(clock), Waiting("a_00001")
    assert named(queue, trial) == "a_00001"
    trial.status = Trial.RUNNING
    assert named(queue, trial) is None
    trial.status = Trial.PENDING
    assert named(queue, trial) == "a_00001"


QUICK = """
    import os, time

    def train(params, trial):
        time.sleep(0.2)
        yield {"score": params["rate"], "worker": os.getpid()}

    train.horizon = 1
    train.metrics = ["score", "worker"]
"""


def test_trials_that_end_sooner_than_a_worker_starts_still_fill_all_slots(tmp_path: Path, ray_session: Any) -> None:
    (tmp_path / "quick.py").write_text(textwrap.dedent(QUICK))
    record = study.run(
        specs.from_mapping(
            {
                "name": "quick",
                "trainable": f"{tmp_path / 'quick.py'}:train",
                "space": {"name": "rates", "parameters": {"rate": {"type": "uniform", "low": 0.0, "high": 1.0}}},
                "search": {"sampler": "random"},
                "budget": {"n_trials": 60, "plateau": None},
                "resources": {"cpu": 0.5, "concurrent": 3},
                "tracking": {"wandb": "off"},
                "results": str(tmp_path / "results"),
            },
            "test",
        )
    )
    assert record.count("complete") == 60
    assert len({trial.metrics["worker"] for trial in record.trials}) == 3
