"""One driver a study: who comes second is told who came first, and a lock never outlives its holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tune_lora import locks
from tune_lora.errors import InputError

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


def test_two_studies_do_not_wait_for_each_other(tmp_path):
    with locks.held(tmp_path / "a", "study 'a'"), locks.held(tmp_path / "b", "study 'b'"):
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
