"""A Trainer as a Tune trainable: one `step` is one Report. Base models stay loaded while Ray reuses the worker.

Checkpoints are the trial folder's own (`trainables.checkpoints`), so that a trial continues wherever and by whomever
it is started again: by Ray after a lost worker, or by another driver after a lost driver.
"""

from __future__ import annotations

import functools
import json
import os
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from trainables import checkpoints
from trainables.protocol import Cause, Report, Trainer, TrialContext, TrialFailure
from trainables.redaction import redacted

_RESULT = "result.json"
_SHARED: dict[str, Any] = {}
"""What outlives trials in this worker process."""


def trainable_for(trainer: Trainer, metric: str, threads: int) -> type[tune.Trainable]:
    """A Tune trainable class that runs `trainer`.

    Configurations are ``{"params": {...}, "trial": {"number", "folder", "seed", "decide_at"}}``. Results hold
    ``budget``, ``metrics``, ``images``, ``seconds``, ``final``; ``score`` where `metric` was measured; ``cause`` and
    ``message`` where the trial failed.
    """

    class TrainerTrainable(_Adapter):
        _trainer, _metric, _threads = trainer, metric, threads

    TrainerTrainable.__name__ = type(trainer).__name__
    return TrainerTrainable


class _Adapter(tune.Trainable):
    _trainer: Trainer
    _metric: str
    _threads: int

    def setup(self, config: dict[str, Any]) -> None:
        # Ray hides a GPU that a trial was not given, but counts CPU threads for nobody.
        os.environ["OMP_NUM_THREADS"] = str(self._threads)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        trial = config["trial"]
        self._folder = Path(trial["folder"])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._budget, self._seconds = 0, 0.0
        self._reports: Generator[Report, None, None] | None = None
        # A result may have been lost on its way when worker or driver died after its checkpoint: it is told again.
        self._told_again = _last_result(self._folder)

    def _end(self) -> None:
        reports, self._reports = self._reports, None
        if reports is not None:
            reports.close()

    def _start(self) -> Generator[Report, None, None]:
        trial = self.config["trial"]
        context = TrialContext(
            params=self.config["params"],
            folder=self._folder,
            seed=int(trial.get("seed", 0)),
            decide_at=frozenset(trial.get("decide_at", ())),
            restore=checkpoints.newest(self._folder),
            threads=self._threads,
            shared=_SHARED,
        )
        return self._trainer.run(context)

    def step(self) -> dict[str, Any]:
        if (again := self._told_again) is not None:
            self._told_again, self._budget, self._seconds = None, again["budget"], again["seconds"]
            return again
        started = time.monotonic()
        try:
            if self._reports is None:
                self._reports = self._start()
            report = next(self._reports)
            result = self._reported(report, started)
            if report.save is not None:
                checkpoints.write(self._folder, report.budget, functools.partial(_save_both, report.save, result))
        except TrialFailure as failure:
            return self._failed(
                failure.cause, failure.message + checkpoints.note(self._folder), failure.metrics, started
            )
        except Exception as error:  # noqa: BLE001  # any bug in a trainer: its traceback is kept and the trial's cause is `crash`
            (self._folder / "traceback.txt").write_text(redacted(traceback.format_exc()))
            return self._failed(Cause.CRASH, f"{type(error).__name__}: {error}", {}, started)
        self._budget = report.budget
        return result

    def _reported(self, report: Report, started: float) -> dict[str, Any]:
        result = self._result(report.metrics, started) | {"budget": report.budget, "final": report.final}
        result["images"] = {label: str(path) for label, path in report.images.items()}
        if self._metric in report.metrics:
            result["score"] = float(report.metrics[self._metric])
        return result | {"done": report.final}

    def _result(self, metrics: Mapping[str, float], started: float) -> dict[str, Any]:
        self._seconds += time.monotonic() - started
        return {"metrics": {name: float(value) for name, value in metrics.items()}, "seconds": self._seconds}

    def _failed(self, cause: Cause, message: str, metrics: Mapping[str, float], started: float) -> dict[str, Any]:
        budget = self._budget + 1
        failed: dict[str, Any] = {
            "budget": budget,
            "final": False,
            "images": {},
            "cause": cause.value,
            "message": redacted(message),  # it is stored, shown and sent to Weights & Biases
            "done": True,
        }
        self._end()
        return self._result(metrics, started) | failed

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        # What Ray keeps is only a note: the checkpoint itself stands in the trial's folder.
        (Path(checkpoint_dir) / "folder.txt").write_text(str(self._folder))

    def load_checkpoint(self, checkpoint: Any) -> None:  # noqa: ARG002  # Ray's signature
        self._end()  # the next step continues from the folder's newest checkpoint


def _save_both(save: Callable[[Path], None], result: Mapping[str, Any], folder: Path) -> None:
    save(folder)
    (folder / _RESULT).write_text(json.dumps(result))


def _last_result(trial_folder: Path) -> dict[str, Any] | None:
    """The result that belongs to the trial's newest checkpoint, or None."""
    newest = checkpoints.newest(trial_folder)
    if newest is None or not (newest / _RESULT).is_file():
        return None
    result: dict[str, Any] = json.loads((newest / _RESULT).read_text())
    return result
