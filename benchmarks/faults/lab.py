"""Where faults are made: a cluster that serves run after run, a small disk that can be filled, a server to lose."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import optuna

from benchmarks.faults import network
from benchmarks.faults.cluster import Cluster, wait_until
from benchmarks.faults.judge import judge
from benchmarks.faults.kinds import FAULTS, REPEATED_AT_MOST, server_command
from benchmarks.faults.trial_study import TRIALS, Run, trainings
from tests import postgres
from tune_lora import store
from tune_lora.errors import InputError, StudyError
from tune_lora.store import StudyRecord

DATABASE = "database_stopped"
KINDS = (*FAULTS, DATABASE)
DEADLINE_SECONDS = 240.0
LAST_MOMENT = 12
"""Epochs after which a fault comes at the latest; the study has about 20 to 30."""
WAITED_FOR = 5
"""Of every fifth run the driver is left to draw its figures and end by itself; of the others it is ended when all
trials have run, since most of a run's time would go there."""
_DISK = "size=48m"


class NotMade(Exception):
    """The study had ended before its fault, so that there was none."""


class Lab:
    """One cluster for many runs. Used as a context manager; needs root for namespaces and mounts."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with contextlib.ExitStack() as opened:
            self.place = Path(tempfile.mkdtemp(prefix="xl", dir="/tmp"))  # short, outside the repository
            opened.callback(shutil.rmtree, self.place, ignore_errors=True)
            (self.place / "disk").mkdir()
            # Before the namespaces are made: they see what was mounted by then.
            opened.enter_context(_small_disk(self.place / "disk"))
            if DATABASE in self._kinds:
                self.server = opened.enter_context(postgres.postgres())
            net = opened.enter_context(network.Network())
            self.cluster = opened.enter_context(Cluster(net, self.place / "epochs"))
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, kind: str, seed: int) -> dict[str, Any]:
        """Makes one fault and says what became of the study."""
        begun, why = time.monotonic(), ""
        for earlier in (1.0, 0.5, 0.0):
            try:
                return self._attempt(kind, seed, earlier) | {"seconds": round(time.monotonic() - begun, 1)}
            except (NotMade, LookupError) as error:
                why = str(error)
        raise NotMade(f"{kind} {seed}: the study always ended first: {why}")

    def _attempt(self, kind: str, seed: int, earlier: float) -> dict[str, Any]:
        random = Random(f"{kind}:{seed}")
        run = self._run(kind)
        wait_until(lambda: not trainings(self.cluster), "the processes of the run before have ended")
        run.write(seed)
        with self._surroundings(kind, run):
            run.start()
            moment = 1 + round(random.randrange(LAST_MOMENT) * earlier)
            try:
                run.wait_for(moment)
                time.sleep(random.uniform(0, 0.2))
                before = [one for one in self._record(kind, run).trials if one.state not in ("running", "waiting")]
                if run.driver.poll() is not None:
                    raise NotMade(_tail(run.log))
                self._make(kind, run, random)
                # What W&B that does not answer may hold up is the end.
                ends_early = seed % WAITED_FOR != 0 and kind != "wandb_unreachable"
                ended = run.finish(DEADLINE_SECONDS, lambda: ends_early and self._has_all(kind, run))
            finally:
                run.end()
                self._clean_up(kind)
        verdict = judge(before, self._record(kind, run), run.traces, TRIALS, ended)
        too_often = verdict.repeated > REPEATED_AT_MOST.get(kind, 1)
        told = {"kind": kind, "seed": seed, "moment": moment, "finished_before": len(before), "codes": run.codes}
        return told | verdict.as_mapping() | {"too_often": too_often, "log": _lines(run.log)}

    def _run(self, kind: str) -> Run:
        folder = self.place / "disk" / "r" if kind == "disk_full" else self.place / kind
        run = Run(self.cluster, folder, self.place / "epochs", self.place / f"{kind}.log")
        run.log.unlink(missing_ok=True)
        if kind == "wandb_unreachable":
            run.changes = {"tracking": {"wandb": "online"}}
        if kind == DATABASE:
            with contextlib.suppress(KeyError):
                optuna.delete_study(study_name="s", storage=self._database)
            run.changes = {"storage": self._database}
        return run

    @property
    def _database(self) -> str:
        # By its socket in the file system, which all namespaces see.
        server = self.server
        return f"postgresql://{postgres.USER}@/{postgres.DATABASE}?host={server.folder}&port={server.port}"

    @contextlib.contextmanager
    def _surroundings(self, kind: str, run: Run) -> Iterator[None]:
        if kind != "wandb_unreachable":
            yield
            return
        with subprocess.Popen(server_command(self.cluster)) as server:
            host = self.cluster.head.machine.address
            run.environment = {
                "WANDB_BASE_URL": f"http://{host}:8080", "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online",
                "FAULTS_SERVER": str(server.pid),
            }  # fmt: skip
            try:
                yield
            finally:
                server.send_signal(signal.SIGKILL)

    def _make(self, kind: str, run: Run, random: Random) -> None:
        if kind == DATABASE:
            self.server.stop(random.choice([signal.SIGINT, signal.SIGQUIT]))
            time.sleep(random.choice([2, 5, 10, 60]))
            self.server.start()
        else:
            FAULTS[kind](run, random)

    def _record(self, kind: str, run: Run) -> StudyRecord:
        if kind == DATABASE:
            return store.read(store.open_study(self._database, "s", "minimize"))
        return store.load(run.results)

    def _has_all(self, kind: str, run: Run) -> bool:
        try:
            return self._record(kind, run).stop_reason.startswith("all ")
        except (InputError, StudyError, optuna.exceptions.OptunaError):  # while the disk or the database is away
            return False

    def _clean_up(self, kind: str) -> None:
        self.cluster.forget()
        if kind == "network_cut":  # whatever became of the node that was cut off
            for node in list(self.cluster.workers):
                self.cluster.remove(node)
            self.cluster.workers = []
            for _ in range(2):
                self.cluster.add_worker()
        if kind in ("network_cut", "node_killed"):
            self.cluster.wait_for_workers()


@contextlib.contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def impossible(kind: str) -> str | None:
    """Why this machine cannot make a kind of fault, or None."""
    if os.geteuid() != 0 or not network.is_possible():
        return "no network namespaces or no mounts: needs root"
    if kind == DATABASE and postgres.binaries() is None:
        return "PostgreSQL is not installed"
    return None


def _lines(log: Path) -> list[str]:
    """What the driver said of the fault."""
    words = ("error:", "what happened", "trial", "W&B", "Weights", "Traceback", "storage", "interrupted")
    return [line[:300] for line in log.read_text(errors="replace").splitlines() if any(word in line for word in words)]


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:] if log.is_file() else ""
