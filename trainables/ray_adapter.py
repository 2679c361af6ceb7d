"""A Trainer as a Tune trainable: one `step` is one Report. Base models stay loaded while Ray reuses the worker.

Checkpoints and reports are the trial folder's own (`trainables.checkpoints`, `trainables.incarnations`), so that a
trial continues wherever and by whomever it is started again: by Ray after a lost worker, or by another driver after a
lost driver. What is no fault of the trial's raises, and Tune starts it again elsewhere: `Lost`, `Preempted`. A trial
that goes on elsewhere already is a result instead, for it must not be started again.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from trainables import checkpoints, incarnations, outages
from trainables.incarnations import Incarnation, Superseded
from trainables.notice import Notice
from trainables.protocol import Cause, Report, Trainer, TrialContext, TrialFailure
from trainables.redaction import redacted

PATIENCE_SECONDS = 10.0
"""How long a trial waits at its beginning and at each report while the disk is full or the share does not answer."""
DEVICE_SECONDS = "device_seconds"
"""The attribute of an error that says what `Report.seconds` says of a report."""
_RETRY_SECONDS = 0.5
_SHARED: dict[str, Any] = {}
"""What outlives trials in this worker process."""
_NOTICE = Notice()


class Preempted(RayActorError):
    """The worker was told to end. Tune starts such a trial again any number of times."""

    preempted = True

    def __str__(self) -> str:
        return "the worker was told to end (SIGTERM)"


class Lost(Exception):
    """The machine failed the trial: its disk, its share, another process of it."""


def leave_if_asked() -> None:
    """Raises Preempted where this process was told to end."""
    if _NOTICE.asked:
        raise Preempted


def trainable_for(trainer: Trainer, metric: str, threads: int) -> type[tune.Trainable]:
    """A Tune trainable class that runs `trainer`.

    Configurations are ``{"params": {...}, "trial": {"number", "folder", "seed", "decide_at"}}``. Results hold
    ``budget``, ``metrics``, ``images``, ``seconds``, ``final``; ``score`` where `metric` was measured; ``cause`` and
    ``message`` where the trial failed. The first result after a restart is the checkpoint's, told again; ``missed``
    are those that led to it, oldest first, and ``happened`` lines about what the restart found. One with ``superseded``
    holds nothing else: the trial goes on elsewhere.
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
        if self.is_actor():
            _NOTICE.listen()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # A process that was told to end says so at its next step: Tune drops a trial whose worker fails here.
        self._end()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        self._folder = Path(config["trial"]["folder"])
        # Nothing is touched before the first step: Tune sets up workers that it then does not use.
        self._budget, self._has_taken_over = 0, False
        self._reports: Generator[Report, None, None] | None = None

    def _take_over(self) -> None:
        """Makes the trial this process's own. At the first step and no sooner: Tune sets up workers that it then does
        not use, while the trial runs in another."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Whoever had the trial may still write what it is writing. From here on it begins nothing more.
        self._incarnation = Incarnation.begin(self._folder)
        self._restore, damaged = checkpoints.restorable(self._folder)
        self._incarnation.goes_on_from(self._restore)
        self._seconds = incarnations.seconds(self._folder)
        number = self.config["trial"]["number"]
        begins = checkpoints.begins(self._restore, self._trainer.budget_unit)
        self._happened = [f"trial {number}: {line}; it goes on from {begins}" for line in damaged]
        self._known = incarnations.reported(self._folder, self._restore) if self._restore else []
        self._has_taken_over = True

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
            restore=self._restore.path if self._restore else None,
            threads=self._threads,
            shared=_SHARED,
        )
        return self._trainer.run(context)

    def step(self) -> dict[str, Any]:
        leave_if_asked()
        try:
            return self._step()
        except Superseded:
            self._end()
            return {"superseded": True, "done": True}

    def _step(self) -> dict[str, Any]:
        if not self._has_taken_over:
            try:
                self._patiently(self._take_over)
            except OSError as error:
                self._raise_where_the_machine_failed(error)
                raise
        if self._known:
            result = self._told_again()
        else:
            with _NOTICE.finishing():
                result = self._next()
        happened, self._happened = self._happened, []
        return result | {"happened": happened} if happened else result

    def _told_again(self) -> dict[str, Any]:
        """The result at the checkpoint, with those before it: each may have been lost on its way to a study when worker
        or driver died."""
        *missed, last = self._known
        self._known, self._budget = [], last["budget"]
        return last | {"seconds": self._seconds, "missed": missed}

    def _next(self) -> dict[str, Any]:
        started = time.monotonic()
        try:
            if self._reports is None:
                self._reports = self._start()
            report = next(self._reports)
            result = self._reported(report, started)
            self._patiently(lambda: self._write(report, result))
        except (Superseded, Lost, Preempted):
            raise
        except TrialFailure as failure:
            if failure.cause is Cause.INFRASTRUCTURE:
                raise Lost(redacted(failure.message)) from failure
            return self._failed(failure.cause, failure.message + checkpoints.note(self._folder), failure, started)
        except Exception as error:  # noqa: BLE001  # any bug in a trainer: its traceback is kept and the trial's cause is `crash`
            self._raise_where_the_machine_failed(error)
            (self._folder / "traceback.txt").write_text(redacted(traceback.format_exc()))
            return self._failed(Cause.CRASH, f"{type(error).__name__}: {error}", error, started)
        self._budget = report.budget
        return result

    def _patiently(self, write: Callable[[], None]) -> None:
        """Writes; waits a while for a disk that is full, or a share that does not answer."""
        begun, said = time.monotonic(), ""
        while True:
            try:
                write()
                break
            except Exception as error:
                said = outages.of_storage(error) or ""
                if not said or time.monotonic() - begun > PATIENCE_SECONDS or _NOTICE.asked:
                    raise
                time.sleep(_RETRY_SECONDS)
        if said:
            number, waited = self.config["trial"]["number"], time.monotonic() - begun
            self._happened.append(redacted(f"trial {number}: waited {waited:.0f} s for its disk ({said})"))

    def _write(self, report: Report, result: Mapping[str, Any]) -> None:
        number = self._incarnation.number
        self._incarnation.report(result)
        if report.save is not None:
            checkpoints.write(
                self._folder, report.budget, report.save, incarnation=number, check=self._incarnation.check
            )

    def _raise_where_the_machine_failed(self, error: Exception) -> None:
        said = outages.of_storage(error) or outages.of_folder(self._folder)
        if said is not None:
            self._end()
            raise Lost(redacted(said)) from error

    def _reported(self, report: Report, started: float) -> dict[str, Any]:
        number = self.config["trial"]["number"]
        self._happened += [redacted(f"trial {number}: {line}") for line in report.happened]
        result = self._result(report.metrics, started, report.seconds)
        result |= {"budget": report.budget, "final": report.final}
        result["images"] = {label: str(path) for label, path in report.images.items()}
        if self._metric in report.metrics:
            result["score"] = float(report.metrics[self._metric])
        return result | {"done": report.final}

    def _result(self, metrics: Mapping[str, float], started: float, seconds: float | None) -> dict[str, Any]:
        """`seconds` are those that the device spent on it, where they are known; else those since `started` are."""
        self._seconds += time.monotonic() - started if seconds is None else seconds
        return {"metrics": {name: float(value) for name, value in metrics.items()}, "seconds": self._seconds}

    def _failed(self, cause: Cause, message: str, error: Exception, started: float) -> dict[str, Any]:
        budget = self._budget + 1
        metrics = error.metrics if isinstance(error, TrialFailure) else {}
        failed: dict[str, Any] = {
            "budget": budget,
            "final": False,
            "images": {},
            "cause": cause.value,
            "message": redacted(message),  # it is stored, shown and sent to Weights & Biases
            "done": True,
        }
        self._end()
        return self._result(metrics, started, getattr(error, DEVICE_SECONDS, None)) | failed

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        # What Ray keeps is only a note: the checkpoint itself stands in the trial's folder.
        (Path(checkpoint_dir) / "folder.txt").write_text(str(self._folder))

    def load_checkpoint(self, checkpoint: Any) -> None:  # noqa: ARG002  # Ray's signature
        if self._reports is not None:  # else setting up has gone on from the folder's newest checkpoint already
            self._end()
            self._begin(self.config)
