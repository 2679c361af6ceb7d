"""The Tune trainable of trials that are mirrored in object storage (`trainables.mirror`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.mirror import Mirror, told
from trainables.mirror_store import MirrorAway
from trainables.protocol import Report
from trainables.ray_adapter import Lost
from trainables.redaction import redacted


def mirrored(trainable: Any, mirror: Mirror | None) -> Any:
    """A class of `trainables.ray_adapter.trainable_for` with its trials' folders on their nodes, mirrored; as it is
    where there is no mirror.
    """
    return trainable if mirror is None else _mirrored(trainable, mirror)


def _mirrored(trainable: Any, mirror: Mirror) -> Any:
    class Mirrored(trainable):
        def _begin(self, config: dict[str, Any]) -> None:
            trial = config["trial"]
            self._there = Path(trial["folder"])
            self._trial = mirror.of(int(trial["number"]), config["params"], int(trial.get("seed", 0)))
            super()._begin({**config, "trial": {**trial, "folder": str(self._trial.folder)}})

        def _take_over(self) -> None:
            _lost_where_away(self._trial.pull)
            super()._take_over()
            self._push()  # so that whoever had the trial finds that it has it no more

        def _write(self, report: Report, result: Mapping[str, Any]) -> None:
            super()._write(report, result)
            self._push()

        def _push(self) -> None:
            _lost_where_away(lambda: self._trial.push(self._incarnation.number))

        def _end(self) -> None:
            super()._end()
            if self._has_taken_over and not self._incarnation.is_superseded:
                self._trial.done()  # else another process of this node may train it

        def _step(self) -> dict[str, Any]:
            result = super()._step()
            if result.get("cause"):
                with suppress(MirrorAway):  # a traceback may be lost, but not how the trial ended
                    self._trial.push(self._incarnation.number)
            return told(result, self._there)

    Mirrored.__name__ = trainable.__name__
    return Mirrored


def _lost_where_away(work: Callable[[], None]) -> None:
    try:
        work()
    except MirrorAway as error:
        raise Lost(redacted(str(error))) from error
