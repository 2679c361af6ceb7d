"""TensorBoard logs of a trial: scalars by epoch and the configuration, in a run folder of its own, so that
``tensorboard --logdir results/<study>/trials`` shows trials side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

FOLDER = "tensorboard"


class EpochLog:
    """Writes scalars into ``<trial folder>/tensorboard``.

    A trial that goes on from `done` epochs writes none of the points before twice: what an earlier process wrote
    after that place is taken back (TensorBoard's purge).
    """

    def __init__(self, trial_folder: Path, done: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._writer = SummaryWriter(str(trial_folder / FOLDER), purge_step=done + 1 if done else None)

    def configuration(self, params: Mapping[str, Any], metrics: Iterable[str]) -> None:
        """The hyperparameters, and the names of the scalars that runs are to be compared by."""
        from torch.utils.tensorboard.summary import hparams

        # `add_hparams` would open a second run in a folder below; these are the summaries that it writes.
        told = {
            name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in params.items()
        }
        for summary in hparams(told, dict.fromkeys(metrics, 0.0)):
            self._writer._get_file_writer().add_summary(summary)

    def scalars(self, epoch: int, metrics: Mapping[str, float], prefix: str = "") -> None:
        """The values of one epoch (from 1); tags are ``<prefix><metric>``."""
        for name, value in metrics.items():
            self._writer.add_scalar(prefix + name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()

    def __enter__(self) -> EpochLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
