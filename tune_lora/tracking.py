"""Weights & Biases follows a study: one run a trial, grouped by study. The only file that imports wandb.

Nothing here can stop or slow a study. A trial's run is written as local files by one background thread when the trial
ends, and uploaded, where the user is online, by a process with a deadline. What goes wrong becomes one line at the end.
"""

from __future__ import annotations

import hashlib
import netrc
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from trainables.redaction import redacted
from tune_lora.store import TrialRecord

Mode = Literal["auto", "online", "offline", "off"]

QUEUE = 256
"""Trials that may wait for the background thread; further ones are left out, and counted."""
UPLOAD_SECONDS = 120.0
"""Longest upload of one run."""
WHOLE = "the study itself is whole"
"""How a line ends that says what went wrong."""


class Tracker(Protocol):
    """Who is told about trials that ended."""

    def finished(self, record: TrialRecord) -> None:
        """Takes note of a trial that ended. Returns at once and never raises."""
        ...

    def close(self, timeout: float = 30.0) -> list[str]:
        """Waits for what is under way, `timeout` seconds at most; returns lines worth showing to the user."""
        ...


class NoTracker:
    """Tracking that is off."""

    def finished(self, record: TrialRecord) -> None:
        """Does nothing."""

    def close(self, timeout: float = 30.0) -> list[str]:
        """Has nothing to say."""
        del timeout
        return []


def start(mode: Mode, *, project: str, group: str, folder: Path) -> Tracker:
    """The tracker of a study.

    Args:
        mode: ``auto`` is online when the user is logged in, and offline otherwise; ``WANDB_MODE`` overrides it.
        project: name of the project at Weights & Biases.
        group: name of the study.
        folder: where the files go, under ``wandb``.
    """
    chosen = _chosen(mode)
    if chosen == "off":
        return NoTracker()
    return WandbTracker(project=project, group=group, folder=folder, online=chosen == "online")


def run_id(project: str, group: str, trial: int) -> str:
    """The run of a trial: the same for the same study and number, so that a trial sent twice is one run."""
    return hashlib.sha256(f"{project}/{group}/{trial}".encode()).hexdigest()[:16]


class UploadError(Exception):
    """An upload that failed or took too long."""


class WandbTracker:
    """Runs as files, written in the background; uploads them too where `online`."""

    def __init__(
        self, *, project: str, group: str, folder: Path, online: bool, upload_seconds: float = UPLOAD_SECONDS
    ) -> None:
        self._project, self._group, self._folder = project, group, folder
        self._online, self._upload_seconds = online, upload_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")
        self._futures: list[Future[None]] = []
        self._left_out = 0
        self._written = self._uploaded = 0
        self._upload: subprocess.Popen[str] | None = None
        self._closed = self._given_up = False

    def finished(self, record: TrialRecord) -> None:
        """Hands the trial to the background thread."""
        waiting = sum(not future.done() for future in self._futures)
        if self._closed or waiting >= QUEUE:
            self._left_out += 1
            return
        self._futures.append(self._thread.submit(self._track, record))

    def close(self, timeout: float = 30.0) -> list[str]:
        """Waits `timeout` seconds at most, then gives up what is left; returns lines worth showing."""
        self._closed = True
        unfinished = wait(self._futures, timeout).not_done
        self._given_up = True
        upload = self._upload
        if unfinished and upload is not None:
            upload.kill()
        self._thread.shutdown(wait=False, cancel_futures=True)
        return self._lines(len(unfinished))

    def _track(self, record: TrialRecord) -> None:
        files = self._write(record)
        self._written += 1
        if self._online and not self._given_up:
            try:
                self._send(files)
            except UploadError:
                self._online = False  # the runs that follow wait on disk rather than each for a deadline
                raise
            self._uploaded += 1

    def _write(self, record: TrialRecord) -> Path:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self._project,
            group=self._group,
            id=run_id(self._project, self._group, record.number),
            name=f"trial-{record.number:03d}",
            tags=_tags(record),
            config=_config(record),
            dir=self._folder,
            mode="offline",
            reinit="create_new",
            settings=wandb.Settings(**_QUIET),
        )
        files = Path(run.dir).parent
        for budget, metrics in _history(record).items():
            run.log(metrics, step=budget)
        run.summary.update(_summary(record))
        run.finish(exit_code=1 if record.state == "failed" else 0)
        _wait_until_whole(files / f"run-{run.id}.wandb")
        return files

    def _send(self, files: Path) -> None:
        command = [sys.executable, "-m", "wandb", "sync", str(files.absolute())]
        with subprocess.Popen(
            command,
            cwd=self._folder,  # it writes its own log under ./wandb
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as self._upload:
            try:
                said, _ = self._upload.communicate(timeout=self._upload_seconds)
            except subprocess.TimeoutExpired:
                self._upload.kill()
                raise UploadError(f"no answer within {self._upload_seconds:.0f} s") from None
            if self._upload.returncode:
                raise UploadError((said.strip().splitlines() or ["no reason given"])[-1])

    def _lines(self, unfinished: int) -> list[str]:
        errors = [error for future in self._futures if future.done() and (error := _error(future))]
        problems = []
        if errors:
            text = " ".join(str(errors[0]).split()) or type(errors[0]).__name__
            problems.append(f"{len(errors)} of {len(self._futures)} runs with an error, the first: {redacted(text)}")
        if missing := unfinished + self._left_out:
            problems.append(f"{missing} not waited for")
        lines = [f"Weights & Biases: {'; '.join(problems)}; {WHOLE}"] if problems else []
        if (local := self._written - self._uploaded) > 0:
            runs = "1 run" if local == 1 else f"{local} runs"
            command = f"wandb sync {shlex.quote(str(self._folder / 'wandb'))}/offline-run-*"
            lines.append(f"Weights & Biases: {runs} on disk; upload with: {command}")
        return lines


_HEADER_BYTES = 7  # of a run's file that holds nothing yet
_QUIET: Mapping[str, Any] = {
    "silent": True,
    "quiet": True,
    "console": "off",  # a study's output is its own
    "show_errors": False,
    "show_warnings": False,
    "symlink": False,
    "disable_git": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


def _chosen(mode: Mode) -> Literal["online", "offline", "off"]:
    if mode != "auto":
        return mode
    environment = os.environ.get("WANDB_MODE", "").lower()
    if environment in ("disabled", "dryrun", "offline"):
        return "off" if environment == "disabled" else "offline"
    return "online" if environment == "online" or _is_logged_in() else "offline"


def _is_logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _wait_until_whole(path: Path, patience: float = 5.0) -> None:
    """Waits until a run's file has stopped growing: the service flushes it a little after `finish` returns."""
    deadline, size = time.monotonic() + patience, _HEADER_BYTES
    while time.monotonic() < deadline:
        time.sleep(0.2)
        before, size = size, path.stat().st_size
        if size == before > _HEADER_BYTES:
            return


def _tags(record: TrialRecord) -> list[str]:
    return list(dict.fromkeys([record.state, *([record.cause.value] if record.cause else [])]))


def _config(record: TrialRecord) -> dict[str, Any]:
    return {**record.config, "trial": {"number": record.number, "provenance": record.provenance, "seed": record.seed}}


def _history(record: TrialRecord) -> dict[int, dict[str, float]]:
    """All metrics by budget; the scheduler's score stands among them."""
    budgets = sorted({*record.history, *record.curve})
    scores = {budget: {"score": score} for budget, score in record.curve.items()}
    return {budget: {**record.history.get(budget, {}), **scores.get(budget, {})} for budget in budgets}


def _summary(record: TrialRecord) -> dict[str, Any]:
    found = {"state": record.state, "seconds": record.seconds, "message": record.message or None, "value": record.value}
    return {**record.metrics, **{name: value for name, value in found.items() if value is not None}}


def _error(future: Future[None]) -> BaseException | None:
    return None if future.cancelled() else future.exception()
