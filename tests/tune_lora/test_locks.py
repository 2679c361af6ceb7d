"""One driver a study: who comes second is told who came first, and a lock never outlives its holder."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tune_lora import locks
from tune_lora.errors import InputError

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from tune_lora import locks

with locks.held(Path(sys.argv[1]), "study 'first'"):
    print("HELD", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "HELD\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it(tmp_path, holder):
    with (
        pytest.raises(
            InputError, match=rf"^study 'mine' is running already \(process {holder.pid}\); wait .* stop it$"
        ),
        locks.held(tmp_path / "lock", "study 'mine'"),
    ):
        pytest.fail("two hold it")


def test_a_killed_holder_leaves_no_lock_behind(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locks.held(tmp_path / "lock", "study 'mine'"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_it_is_free_again_afterwards_and_after_an_error(tmp_path):
    path = tmp_path / "new" / "folder" / "lock"
    with pytest.raises(KeyError), locks.held(path, "study 'mine'"):
        raise KeyError
    with locks.held(path, "study 'mine'"), pytest.raises(InputError), locks.held(path, "study 'mine'"):
        pytest.fail("two hold it")


@pytest.mark.parametrize("said", [errno.ENOLCK, errno.ENOSYS])
def test_a_disk_without_locks_is_told_as_what_it_is(tmp_path, monkeypatch, said):
    def refuse(*_):
        raise OSError(said, os.strerror(said))

    monkeypatch.setattr(fcntl, "flock", refuse)  # no disk of this kind can be had here
    with pytest.raises(InputError) as told, locks.held(tmp_path / "lock", "study 'mine'"):
        pytest.fail("it is held")
    assert "running already" not in str(told.value)
    assert f"{tmp_path / 'lock'}: cannot be locked ({os.strerror(said)})" in str(told.value)
    with locks.turn(tmp_path / "turn"):  # the study has run; what it found is written down
        pass


def test_two_studies_do_not_wait_for_each_other(tmp_path):
    with locks.held(tmp_path / "a", "study 'a'"), locks.held(tmp_path / "b", "study 'b'"):
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


DRIVER = """
import sys
from pathlib import Path
from tune_lora import locks

with locks.driving(sys.argv[1], Path(sys.argv[2]), "mine"):
    print("HELD", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def driving(tmp_path):
    """Another process that drives the study `mine` in a storage, with its results in another folder."""
    processes = []

    def drive(storage):
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, storage, str(tmp_path / "elsewhere")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "HELD\n"

    yield drive
    for process in processes:
        with process:
            process.kill()


def test_two_drivers_of_one_file_are_kept_apart_wherever_their_results_are(tmp_path, driving):
    storage = f"sqlite:///{tmp_path}/common.db"
    driving(storage)
    with pytest.raises(InputError, match="study 'mine' is running already"), locks.driving(storage, tmp_path, "mine"):
        pytest.fail("two drive it")
    with locks.driving(storage, tmp_path, "another"):  # a file may hold several studies
        pass


def test_a_server_has_room_for_several_drivers(tmp_path, driving):
    storage = "postgresql://tuner@db.example/studies"
    driving(storage)
    with locks.driving(storage, tmp_path / "elsewhere", "mine"):
        assert not (tmp_path / "elsewhere").exists()


def test_turns_are_waited_for(tmp_path):
    program = "\n".join(
        [
            "import sys, time",
            "from pathlib import Path",
            "from tune_lora import locks",
            "file = Path(sys.argv[1]) / 'count'",
            "for _ in range(50):",
            "    with locks.turn(Path(sys.argv[1]) / 'lock'):",
            "        file.write_text(str(int(file.read_text()) + 1))",
        ]
    )
    (tmp_path / "count").write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"
