"""Jobs on a Ray cluster, over the HTTP address of its dashboard: submit, find, follow, stop. Every failure to get there
is one line."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from cluster import job as on_cluster
from cluster.dashboard import client, explained, first_line
from cluster.tail import Tail, is_of_study
from tune_lora.errors import InputError, TuneLoraError

STUDY, FOLDER = "tune_lora_study", "tune_lora_folder"
"""Names in a job's metadata."""
STOP_SECONDS = 120
"""How long a driver that was asked to stop has to write the study down, before Ray kills it; Ray itself gives three."""
ENTRYPOINT = f'exec "${on_cluster.PYTHON}" {on_cluster.MODULE}.py'
HOOK = f"{on_cluster.MODULE}.prepare"
_ASIDE_SECONDS = 180.0
_LOST_AT_MOST = 10
"""In a row."""
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """One submission of a study. `status` is Ray's, `began` in seconds of the epoch, `folder` that of the results."""

    id: str
    study: str
    folder: str
    status: str
    began: float
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it runs no more and never will."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


def name_of(study: str, folder: str, attempt: int) -> str:
    """The name of a study's job: the same for the same study and results, with the number of the attempt."""
    return f"{study}-{hashlib.sha256(f'{study}:{folder}'.encode()).hexdigest()[:8]}-{attempt}"


def next_attempt(names: Iterable[str]) -> int:
    """The number of the attempt after those of some names: a name is taken for good, whatever became of others."""
    taken = (re.search(r"-(\d+)$", name) for name in names)
    return max((int(found[1]) for found in taken if found), default=0) + 1


class Jobs:
    """The jobs of one cluster.

    Raises (all methods):
        InputError: nothing answers at `address`, it is no Ray dashboard, it lets nobody in with this token, or it is
            another Ray than this one.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._client = client(self.address)

    def of_study(self, study: str | None = None, folder: str | None = None) -> list[Job]:
        """Submissions of a study, the latest last; of all studies without a name."""
        with explained(self.address):
            found = [_job(details) for details in self._client.list_jobs() if (details.metadata or {}).get(STUDY)]
        wanted = [job for job in found if job.study == (study or job.study) and job.folder == (folder or job.folder)]
        return sorted(wanted, key=lambda job: (job.began, job.id))

    def find(self, what: str, folder: str | None = None) -> Job:
        """The job of that name, else the latest of the study of that name; `folder` is that of its results.

        Raises:
            InputError: there is none, or several studies of that name, of which not just one runs.
        """
        everything = self.of_study()
        if named := [job for job in everything if job.id == what]:
            return named[0]
        found = [job for job in everything if job.study == what and job.folder == (folder or job.folder)]
        if not found:
            available = ", ".join(dict.fromkeys(job.study for job in everything)) or "none"
            raise InputError(f"{what}: no such study or job at {self.address}; available: {available}")
        if len({job.folder for job in found}) == 1:
            return found[-1]
        running = [job for job in found if not job.is_over]
        if len(running) != 1:
            raise InputError(
                f"{what}: several studies of that name at {self.address}; must be one of the jobs "
                f"{', '.join(job.id for job in found)}"
            )
        return running[0]

    def submit(self, package: Path, study: str, folder: str, environment: Mapping[str, str]) -> Job:
        """Starts a study from its package.

        Raises:
            InputError: it runs already.
        """
        before = self.of_study(study, folder)
        if running := next((job for job in before if not job.is_over), None):
            raise self._runs_already(running)
        name = name_of(study, folder, next_attempt(job.id for job in before))
        variables = {
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
            WORKER_PROCESS_SETUP_HOOK_ENV_VAR: HOOK,  # Ray hands the hook to workers, but not to what starts the driver
            **environment,
        }
        with explained(self.address, f"{study} was submitted by somebody else just now, as job {name}"):
            self._client.submit_job(
                entrypoint=ENTRYPOINT,
                submission_id=name,
                metadata={STUDY: study, FOLDER: folder},
                runtime_env={
                    "working_dir": str(package),
                    "worker_process_setup_hook": HOOK,
                    "env_vars": variables,
                },
            )
        return self.look(name)

    def _runs_already(self, job: Job) -> InputError:
        return InputError(
            f"study {job.study!r} runs already as job {job.id} ({job.status.lower()}); wait for it, follow it "
            f"(tune-lora status {job.id} --address {self.address} --follow) or stop it (tune-lora stop {job.id} "
            f"--address {self.address})"
        )

    def look(self, name: str) -> Job:
        """A job as it is now."""
        with explained(self.address):
            return _job(self._client.get_job_info(name))

    def stop(self, job: Job, seconds: float = STOP_SECONDS + 30) -> Job:
        """Asks the study's driver to stop, and waits until it has. What was running keeps its checkpoints."""
        with explained(self.address):
            self._client.stop_job(job.id)
        return self._wait(job.id, seconds)

    def _wait(self, name: str, seconds: float) -> Job:
        deadline = time.monotonic() + seconds
        while not (found := self.look(name)).is_over and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def aside(self, job: Job, arguments: str) -> str:
        """What a command of tune-lora prints on the cluster, with the package and environment of a job; the short job
        that it takes is removed again. `arguments` are words of a shell.

        Raises:
            TuneLoraError: it failed or took minutes.
        """
        with explained(self.address):
            about = self._client.get_job_info(job.id).runtime_env
            name = self._client.submit_job(
                entrypoint=f'exec "${on_cluster.PYTHON}" -m tune_lora.cli {arguments}',
                submission_id=f"{job.study}-status-{uuid.uuid4().hex[:8]}",
                runtime_env=dict(about or {}),
            )
            ended = self._wait(name, _ASIDE_SECONDS)
            said = "\n".join(filter(is_of_study, self._client.get_job_logs(name).splitlines()))
            with suppress(RuntimeError):  # it still runs; its name says what it is
                self._client.delete_job(name)
        if ended.status != "SUCCEEDED":
            raise TuneLoraError(said.strip().removeprefix("error: ") or f"job {name} {ended.status.lower()}")
        return said

    def follow(self, job: Job, write: Callable[[str], None]) -> Job:
        """Hands on the lines of a job's log as it grows, until the job is over; a lost connection is taken up again.

        Raises:
            TuneLoraError: it cannot be; the job goes on.
        """
        tail, lost = Tail(write), 0
        while True:
            heard = tail.heard
            try:
                asyncio.run(self._connected(job.id, tail))
                if (now := self.look(job.id)).is_over:
                    tail.end()
                    return now
                lost = 0
            except (TuneLoraError, RuntimeError, aiohttp.ClientError, OSError) as error:
                lost = 1 if tail.heard > heard else lost + 1  # what was said anew came over a good connection
                if lost > _LOST_AT_MOST:
                    raise TuneLoraError(
                        f"the connection to {self.address} is lost ({first_line(error)}); job {job.id} goes on"
                    ) from None
            time.sleep(_AGAIN_SECONDS)

    async def _connected(self, name: str, tail: Tail) -> None:
        tail.begin()
        async for chunk in self._client.tail_job_logs(name):
            tail.feed(chunk)


def _job(details: Any) -> Job:
    about = details.metadata or {}
    return Job(
        id=str(details.submission_id),
        study=about.get(STUDY, ""),
        folder=about.get(FOLDER, ""),
        status=str(getattr(details.status, "value", details.status)),
        began=(details.start_time or 0) / 1000,
        message=details.message or "",
    )
