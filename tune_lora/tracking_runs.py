"""One trial's run at Weights & Biases. The only file that imports wandb.

A run is brought to what it is told to be: only what is not there yet is logged, so that a run which goes on, after a
restart or from another machine, has no step twice. Online the server says how far it has come. Offline a run is
written as a whole from its first step, and what had been written of it before is deleted: one folder a run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from tune_lora.tracking_journal import Where
from tune_lora.tracking_messages import BUDGET, INTERRUPTED
from tune_lora.tracking_pictures import pictures

INIT_SECONDS = 20.0
"""How long a run's beginning waits for the server."""
FINISH_SECONDS = 45.0
"""How long a run's end waits for its uploads."""
IMAGES = "images"
_QUIET: Mapping[str, Any] = {
    "silent": True,
    "quiet": True,
    "console": "off",  # a study's output is its own
    "show_errors": False,
    "show_warnings": False,
    "symlink": False,
    "disable_git": True,
    "save_code": False,
    "allow_val_change": True,  # a run that goes on may have another driver's settings
    "init_timeout": INIT_SECONDS,
    "finish_timeout": FINISH_SECONDS,
    "finish_timeout_raises": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,  # it would be the driver's, not the trial's
    "x_disable_meta": True,
    "x_save_requirements": False,
    "x_file_stream_transmit_interval": 5.0,
    "x_transaction_log_flush_interval": 5.0,
}


def begin_service() -> None:
    """Starts wandb's own process, which all runs share."""
    wandb.setup(wandb.Settings(**_QUIET))


def end_service() -> None:
    """Waits until what has been logged is in its files, and ends wandb's own process."""
    wandb.teardown()


def forget_earlier(kept: Path, run: str) -> None:
    """Deletes what was written earlier of a run that is in the folder `kept` as a whole: offline all of it, online what
    was meant for an upload later."""
    for folder in kept.parent.glob(f"*-{run}*"):
        is_later = kept.name.startswith("offline-") or folder.name.startswith("offline-")
        if folder != kept and folder.is_dir() and is_later:
            shutil.rmtree(folder, ignore_errors=True)


class TrialRun:
    """The run of one trial, open from its first message to its end. One thread at a time."""

    def __init__(self, told: Mapping[str, Any], *, project: str, group: str, folder: Path, online: bool) -> None:
        """Opens the run.

        Args:
            told: a whole message (`tracking_messages.message`).
            project: name of the project.
            group: name of the study.
            folder: where the files go, under ``wandb``.
            online: whether it is uploaded as it grows.

        Raises:
            wandb.Error: the server refuses, or does not answer in time.
            OSError: the folder cannot be written.
        """
        self._about = {"project": project, "group": group, "id": told["id"], "name": told["name"], "dir": folder}
        self.where: Where = "online" if online else "offline"
        self._run = self._open(online, config=told["config"])
        self._run.tags = tuple(told["tags"])  # in place of those that a run which goes on has
        self._run.define_metric(BUDGET, hidden=True)
        self._run.define_metric("*", step_metric=BUDGET)
        self._next = self._run.starting_step

    def _open(self, online: bool, *, keeps_state: bool = False, **more: Any) -> wandb.Run:
        return wandb.init(
            **self._about,
            **more,
            job_type="trial",
            mode="online" if online else "offline",
            resume="allow" if online else None,
            reinit="create_new",
            settings=wandb.Settings(**_QUIET, x_update_finish_state=not keeps_state),
        )

    @property
    def url(self) -> str:
        """Where the runs of the study can be seen; empty where this one is offline."""
        return f"{self._run.project_url}/groups/{self._about['group']}" if self._run.project_url else ""

    def log(self, rows: list[Any]) -> None:
        """Logs ``[budget, metrics, pictures]`` of each report that the run does not have yet."""
        for budget, metrics, sheets in rows:
            if budget < self._next:
                continue
            table = _table(budget, sheets)
            row = {**metrics, BUDGET: budget, **({IMAGES: table} if table else {})}
            self._run.log(row, step=budget, commit=True)  # else it is sent with the next one, an epoch later
            self._next = budget + 1

    def end(self, told: Mapping[str, Any]) -> None:
        """Ends the run as a message says, with its tags and its artifact.

        Raises:
            TimeoutError: not all of it was uploaded in time.
        """
        self._run.tags = tuple(told["tags"])
        self._run.summary.update(told["summary"])
        if told["artifact"] is not None:
            self._keep(told["artifact"])
        self._run.finish(exit_code=0 if told["end"] == "finished" else 1)
        if told["end"] == "crashed":
            self._fall_silent(told["tags"])

    def leave(self) -> None:
        """Ends the process's part of a run whose trial goes on later, with the next driver."""
        self._run.tags = tags = (INTERRUPTED,)
        self._run.finish(exit_code=1)
        self._fall_silent(tags)

    def drop(self) -> None:
        """Gives the run up without a word: it is written again elsewhere."""
        self._run.finish(exit_code=1)

    def _fall_silent(self, tags: Sequence[str]) -> None:
        """Weights & Biases calls a run crashed when it hears nothing of it any more, and offers no other way to say so.
        All is uploaded by now: the run is opened once more, and left without an end."""
        if self.where == "online":
            self._open(True, keeps_state=True, tags=list(tags)).finish()

    def _keep(self, artifact: Mapping[str, Any]) -> None:
        kept = wandb.Artifact(artifact["name"], type="model", metadata=dict(artifact["metadata"]))
        kept.add_dir(artifact["files"], policy="immutable")  # a trial's files stay as they are: no copies
        self._run.log_artifact(kept, aliases=["best", "latest"])

    @property
    def files(self) -> Path:
        """The folder of its files."""
        return Path(self._run.dir).parent


def _table(budget: int, sheets: dict[str, str]) -> wandb.Table | None:
    found = pictures(sheets)
    if not found:
        return None
    table = wandb.Table(columns=["prompt", "seed", BUDGET, "failed", "image"])
    for one in found:
        table.add_data(one.prompt, one.seed, budget, one.failed, wandb.Image(one.image, caption=one.prompt))
    return table
