"""The driver's end of the pipe to the process that tracks its trials."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import psutil

from tune_lora.errors import TuneLoraError
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.tracking import Place
from tune_lora.tracking_messages import end_of, line, message

_ROOT = Path(__file__).parent.parent


class TrackingProcess:
    """The other process, and what it has been told. Used by one thread."""

    def __init__(self, place: Place, *, online: bool, session: str) -> None:
        """Starts it. Raises OSError where that cannot be."""
        place.files.mkdir(parents=True, exist_ok=True)
        self._place, self._known = place, dict[int, set[int]]()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the process has ended
        self._process = subprocess.Popen(
            # -P: what lies in the user's working folder must not shadow a module.
            [sys.executable, "-P", "-m", "tune_lora.tracking_process"],
            env=_environment(place.files),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # ctrl-C is the driver's
        )
        about = {"project": place.project, "group": place.group, "folder": str(place.files.parent.absolute())}
        self._write(line({**about, "online": online, "session": session}))

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _write(self, text: bytes) -> None:
        self._input.write(text)
        self._input.flush()

    def tell(self, study: StudyRecord, trial: TrialRecord, *, best: bool = False) -> None:
        """Tells what a trial looks like, if that is news. Waits where the process is slow. Raises BrokenPipeError where
        it is gone."""
        known = self._known.setdefault(trial.number, set())
        told = message(study, trial, self._place, known=known, best=best)
        if known and not told["rows"] and "end" not in told:
            return
        self._bring(sheet for _, _, sheets in told["rows"] for sheet in sheets.values())
        self._write(line(told))
        known.update(row[0] for row in told["rows"])
        if end_of(trial) is not None:
            del self._known[trial.number]  # told again, it is a run that is opened again

    def _bring(self, sheets: Iterable[str]) -> None:
        """Pictures that were made elsewhere; one that cannot be brought is left out."""
        for sheet in sheets:
            if self._place.fetch is not None and not Path(sheet).exists():
                with contextlib.suppress(OSError, TuneLoraError):
                    self._place.fetch(os.path.relpath(sheet, self._place.folder))

    def close(self) -> None:
        """Says that this was all."""
        with contextlib.suppress(BrokenPipeError):
            self._input.close()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by itself within `seconds`; it has ended in any case."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return self._process.returncode == 0

    def kill(self) -> None:
        """Ends it and wandb's own process."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for one in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        self._process.wait()

    @property
    def last_words(self) -> str:
        """The last line of its errors."""
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else ""


def _environment(files: Path) -> Mapping[str, str]:
    # How runs are written is said in each; a service of the user's own program is not ours to use.
    held = {name: value for name, value in os.environ.items() if name not in ("WANDB_MODE", "WANDB_SERVICE")}
    held.setdefault("WANDB_DATA_DIR", str(files.absolute() / "data"))  # pictures wait there for their upload
    held.setdefault("WANDB_ERROR_REPORTING", "false")  # what wandb tells its makers about itself is for users to allow
    paths = [str(_ROOT), *held.get("PYTHONPATH", "").split(os.pathsep)]
    return {**held, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
