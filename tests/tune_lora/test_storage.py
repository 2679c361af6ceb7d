"""The storage: what waits, what is told, what is not written twice."""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from tests.postgres import Postgres, postgres, skip_where_missing
from tests.proxy import relay
from tune_lora import storage, storage_files, store
from tune_lora.errors import InputError, StudyError

pytestmark = pytest.mark.alone

DEADLINE = 60.0


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.is_away = threading.Event()

    def away(self, line: str) -> None:
        self.lines.append(line)
        self.is_away.set()

    def back(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    skip_where_missing()
    with postgres() as running:
        yield running


def study_of(url: str, name: str = "held", patience: float = DEADLINE) -> optuna.Study:
    return store.open_study(url, name, "minimize", patience=patience)


def listened(study: optuna.Study) -> Heard:
    backend = storage.patient(study)
    assert backend is not None
    backend.listener = heard = Heard()
    return heard


def template(tune_id: str) -> optuna.trial.FrozenTrial:
    return create_trial(state=TrialState.RUNNING, user_attrs={storage.TUNE_ID: tune_id, "config": {"rate": 0.1}})


def later(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


# --- SQLite ----------------------------------------------------------------------------------------------------------


def test_a_lock_is_waited_for_and_both_its_ends_are_told(tmp_path: Path) -> None:
    study = study_of(store.sqlite_url(tmp_path))
    heard = listened(study)
    held = sqlite3.connect(tmp_path / "study.db", check_same_thread=False, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")

    def let_go_when_it_is_missed() -> None:
        heard.is_away.wait(DEADLINE)
        held.execute("COMMIT")

    waiting = later(let_go_when_it_is_missed)
    study.set_user_attr("said", 1)
    waiting.join()
    held.close()
    assert study.user_attrs["said"] == 1
    away, back = heard.lines
    assert "database is locked" in away and "waiting for up to" in away
    assert "answers again after" in back


def test_a_lock_that_stays_ends_in_one_line_and_is_not_waited_for_twice(tmp_path: Path) -> None:
    study = study_of(store.sqlite_url(tmp_path), patience=0.1)
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        with pytest.raises(StudyError, match=r"study\.db: has not answered for .* \(database is locked\)") as first:
            study.set_user_attr("said", 1)
    assert "\n" not in str(first.value)
    with pytest.raises(StudyError, match="has not answered"):  # also when it would answer by now
        study.set_user_attr("said", 1)


TOLD_TO_END = """
import signal, sqlite3, sys
from tune_lora import storage, store, termination

def once(*_):
    # As Tune does: the first ctrl-C is remembered, the second one interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

class Listener:
    def away(self, line):
        print("AWAY", flush=True)
    def back(self, line):
        pass

study = store.open_study(sys.argv[1], "held", "minimize")
storage.patient(study).listener = Listener()
held = sqlite3.connect(sys.argv[2], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
signal.signal(signal.SIGINT, once)
with termination.noticed():
    study.set_user_attr("said", 1)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_told_to_end_does_not_wait_for_its_storage(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", TOLD_TO_END, store.sqlite_url(tmp_path), str(tmp_path / "study.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        try:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "AWAY\n"
            waiting.send_signal(how)
            _, told = waiting.communicate(timeout=DEADLINE)  # its patience is ten minutes
        finally:
            waiting.kill()
    assert waiting.returncode == 1
    line = told.splitlines()[-1]
    assert "StudyError: storage sqlite" in line and "(database is locked), and the run was told to end" in line


def test_a_full_disk_is_no_fault_that_passes(tmp_path: Path) -> None:
    study = study_of(store.sqlite_url(tmp_path), patience=DEADLINE)
    backend = storage.patient(study)
    assert backend is not None
    # SQLite's own limit stands in for the disk's.
    event.listen(backend.engine, "connect", lambda made, _: made.execute("PRAGMA max_page_count = 1"))
    backend.engine.dispose()
    with pytest.raises(StudyError, match=r"database or disk is full; make room"):
        study.set_user_attr("said", "x" * 1_000_000)
    assert "said" not in study_of(store.sqlite_url(tmp_path)).user_attrs


def test_a_drivers_file_is_written_ahead_and_is_one_file_again_when_it_is_done(tmp_path: Path) -> None:
    study = study_of(store.sqlite_url(tmp_path))
    backend = storage.patient(study)
    assert backend is not None
    assert storage_files.writes_through(backend.engine) == "wal"
    with storage.listening(study, Heard()):
        study.add_trial(template("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
    with closing(sqlite3.connect(tmp_path / "study.db")) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert plain.execute("SELECT count(*) FROM trials").fetchone() == (1,)


def test_a_reader_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    study = study_of(store.sqlite_url(tmp_path))
    with storage.listening(study, Heard()):
        pass
    assert store.load(tmp_path).trials == ()
    with closing(sqlite3.connect(tmp_path / "study.db")) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_backup_holds_what_is_written_so_far(tmp_path: Path) -> None:
    study = study_of(store.sqlite_url(tmp_path))
    study.add_trial(template("a"))
    backend = storage.patient(study)
    assert backend is not None
    (tmp_path / "copy").mkdir()
    storage_files.backup(backend.engine, tmp_path / "copy" / "study.db")
    study.add_trial(template("b"))
    assert len(store.load(tmp_path / "copy").trials) == 1
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["study.db"]


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/me/fast\\040disk xfs rw 0 0
tank /home/me/odd unheard rw 0 0
tmpfs /home/me/odd tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("place", "local"),
    [("/srv/x", True), ("/home/me/x", False), ("/home/me/fast disk/x", True), ("/home/me/odd/x", True)],
)
def test_disks_of_a_network_are_known(place: str, local: bool) -> None:
    assert storage_files.is_local(Path(place), MOUNTS) is local


@given(st.text(max_size=200))
def test_what_cannot_be_told_counts_as_a_network(mounts: str) -> None:
    known = any(f" {kind} " in f" {line} " for line in mounts.splitlines() for kind in storage_files.LOCAL)
    assert known or not storage_files.is_local(Path("/srv"), mounts)


def test_on_a_disk_of_a_network_the_rollback_journal_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_files, "LOCAL", frozenset())
    study = study_of(store.sqlite_url(tmp_path))
    backend = storage.patient(study)
    assert backend is not None
    assert storage_files.writes_through(backend.engine) == "delete"


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_waited_for(server: Postgres) -> None:
    study = study_of(server.url, "away")
    heard = listened(study)
    server.stop(signal.SIGQUIT)

    def start_when_it_is_missed() -> None:
        heard.is_away.wait(DEADLINE)
        server.start()

    waiting = later(start_when_it_is_missed)
    study.add_trial(template("a"))
    waiting.join()
    assert [trial.number for trial in study.trials] == [0]
    assert len(heard.lines) == 2 and server.password not in "".join(heard.lines)


def test_a_creation_whose_answer_was_lost_makes_no_second_trial(server: Postgres) -> None:
    with relay(server.port) as lossy:
        study = study_of(server.url.replace(str(server.port), str(lossy.port)), "lost-creation")
        lossy.lose_answers_to(b"COMMIT", times=2)
        study.add_trial(template("only"))
        study.add_trial(template("next"))
    assert lossy.lost == 2
    stored = optuna.load_study(study_name="lost-creation", storage=server.url).trials
    assert [(trial.number, trial.user_attrs[storage.TUNE_ID]) for trial in stored] == [(0, "only"), (1, "next")]


def test_an_end_whose_answer_was_lost_is_told_once(server: Postgres) -> None:
    with relay(server.port) as lossy:
        study = study_of(server.url.replace(str(server.port), str(lossy.port)), "lost-end")
        study.add_trial(template("only"))
        lossy.lose_answers_to(b"COMMIT")
        study.tell(0, 0.25)
    assert lossy.lost == 1
    (stored,) = optuna.load_study(study_name="lost-end", storage=server.url).trials
    assert stored.state == TrialState.COMPLETE and stored.value == 0.25
    with pytest.raises(ValueError, match="COMPLETE"):  # a second end is a mistake still
        study.tell(0, 0.5)


def test_a_wrong_password_is_told_at_once_and_not_shown(server: Postgres) -> None:
    with pytest.raises(InputError, match=r"tuner:\*\*\*@127.*password authentication failed") as told:
        study_of(server.url.replace(server.password, "wrong-one"))
    assert "wrong-one" not in str(told.value)


def test_no_server_is_told_at_once() -> None:
    skip_where_missing()
    with pytest.raises(InputError, match=r"cannot be opened .*refused"):
        study_of("postgresql://tuner@127.0.0.1:1/studies")


def _open(url: str, name: str) -> None:
    study_of(url, name).add_trial(template(multiprocessing.current_process().name))


def test_drivers_that_begin_together_share_one_study(server: Postgres) -> None:
    """The tables of an empty database are made by all of them at once."""
    with postgres() as empty:
        spawn = multiprocessing.get_context("spawn")
        drivers = [spawn.Process(target=_open, args=(empty.url, "shared")) for _ in range(4)]
        for driver in drivers:
            driver.start()
        for driver in drivers:
            driver.join(DEADLINE)
        assert [driver.exitcode for driver in drivers] == [0] * 4
        stored = optuna.load_study(study_name="shared", storage=empty.url).trials
        assert sorted(trial.number for trial in stored) == [0, 1, 2, 3]


# --- a results folder whose study is elsewhere -----------------------------------------------------------------------


def test_a_folder_leads_to_its_study_in_a_server(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_of(server.url, "elsewhere").add_trial(template("a"))
    hidden = server.url.replace(server.password, "***")
    (tmp_path / "study.yaml").write_text(f"name: elsewhere\nstorage: {hidden}\n")
    monkeypatch.setenv("TUNE_LORA_STORAGE", hidden)
    monkeypatch.setenv("TUNE_LORA_STORAGE_PASSWORD", server.password)
    assert len(store.load(tmp_path).trials) == 1
    monkeypatch.setenv("TUNE_LORA_STORAGE_PASSWORD", "wrong-one")
    with pytest.raises(InputError, match=r"cannot be opened .*password"):
        store.load(tmp_path)


def test_a_folder_whose_study_is_gone_says_so(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_LORA_STORAGE", server.url)
    (tmp_path / "study.yaml").write_text(f"name: nowhere\nstorage: {server.url}\n")
    with pytest.raises(InputError, match=r"study 'nowhere' not found in postgresql://tuner:\*\*\*@.*; available: "):
        store.load(tmp_path)
    (tmp_path / "study.yaml").write_text(f"name: nowhere\nstorage: sqlite:///{tmp_path}/absent.db\n")
    with pytest.raises(InputError, match=r"absent\.db does not exist"):
        store.load(tmp_path)
    assert not (tmp_path / "absent.db").exists()
