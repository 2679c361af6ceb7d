"""Work that trials of a node have in common is done once: real processes that begin at the same moment."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainables import node_lock

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]

BEGIN = """
import os, sys, time
from pathlib import Path
place = Path(sys.argv[1])

def worked(what):
    with (place / "work").open("a") as log:
        log.write(what + "\\n")

def begin():  # all at once
    (place / f"ready-{os.getpid()}").touch()
    while not (place / "go").exists():
        time.sleep(0.01)
"""
ENTRY = """
import torch
from trainables.lora.entries import entry

def make():
    worked("made")
    time.sleep(1)
    return {"numbers": torch.arange(6.0)}

begin()
assert entry(place / "latents" / "x.safetensors", make)["numbers"].sum() == 15
"""
STAGE_1 = """
from trainables.protocol import TrialContext
from trainables.transfer.stage1 import Pretraining
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage

train = Pretraining.train

def slowly(self):
    worked("epoch")
    time.sleep(0.2)
    return train(self)

Pretraining.train = slowly
trainer = TwoStage(SyntheticTransfer(n_stage1=200, n_stage2=80), cache=place / "stage1", stage1_report_every=1)
params = {"encoder_hidden_dims": "16_8", "encoder_latent_dim": 4, "lr_pretrain": 3e-3, "stage1_epochs": 6,
          "stage2_epochs": 3, "stage1_batch_size": 64}
folder = place / str(os.getpid())
folder.mkdir()
begin()
assert list(trainer.run(TrialContext(params=params, folder=folder)))[-1].final
"""
MOLECULES = """
import numpy as np
from trainables.tables import chem_cache

chem_cache._version = lambda: "any"

def compute(one):
    worked(one)
    time.sleep(0.1)
    return np.array([float(len(one))])

begin()
assert chem_cache.cached("lengths", ["C", "CC", "CCO"], 1, compute).ravel().tolist() == [1.0, 2.0, 3.0]
"""
LARGE_FILE = """
import hashlib
from trainables.lora.text import sources

digest = hashlib.file_digest

def slowly(*arguments):
    worked("hashed")
    time.sleep(0.5)
    return digest(*arguments)

hashlib.file_digest = slowly
begin()
assert len(sources.digest_of(place / "weights")) == 64
"""


def together(place: Path, program: str, processes: int = 2) -> list[str]:
    """What processes wrote that they had worked on, which began at the same moment and all came to their end."""
    (place / "weights").write_bytes(b"large")
    environment = {**os.environ, "TUNE_LORA_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + program, str(place)], cwd=ROOT, env=environment, stderr=subprocess.PIPE
        )
        for _ in range(processes)
    ]
    try:
        wait_until(lambda: len(list(place.glob("ready-*"))) == processes or any(one.poll() for one in begun))
        (place / "go").touch()
        for one in begun:
            _, said = one.communicate(timeout=300)
            assert one.returncode == 0, said.decode()
    finally:
        for one in begun:
            one.kill()
            one.wait()
    return (place / "work").read_text().split()


def wait_until(holds, seconds=180):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("program", "work"),
    [
        pytest.param(ENTRY, ["made"], id="latents and text states"),
        pytest.param(STAGE_1, ["epoch"] * 6, id="stage 1"),
        pytest.param(MOLECULES, ["C", "CC", "CCO"], id="molecules"),
        pytest.param(LARGE_FILE, ["hashed"], id="the digest of a base"),
    ],
)
def test_what_two_processes_need_at_once_is_made_once(program, work, tmp_path):
    assert together(tmp_path, program) == work


HOLDS = """
from trainables.node_lock import only_one
with only_one(place / "entry"):
    (place / "held").touch()
    time.sleep(600)
"""


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_lock_of_a_process_that_was_killed_is_free(own_cache):
    holder = subprocess.Popen([sys.executable, "-c", BEGIN + HOLDS, str(own_cache)], cwd=ROOT, env=dict(os.environ))
    waited = []
    try:
        wait_until((own_cache / "held").exists)

        def meanwhile():
            waited.append(1)
            if len(waited) == 3:
                holder.kill()

        with node_lock.alone(own_cache / "entry", meanwhile):
            assert len(waited) >= 3
    finally:
        holder.kill()
        holder.wait()


def test_a_thread_never_waits_for_itself(own_cache):
    with node_lock.only_one(own_cache / "entry"), node_lock.only_one(own_cache / "entry"):
        pass


def test_a_process_never_waits_for_itself(own_cache):
    def never():
        raise AssertionError("it waits")

    with node_lock.alone(own_cache / "entry", never):
        with node_lock.alone(own_cache / "entry", never):
            pass
        with node_lock.alone(own_cache / "another", never):
            pass
    with node_lock.alone(own_cache / "entry", never):
        pass


def test_who_waits_may_give_up(own_cache):
    class Enough(Exception):
        pass

    def enough():
        raise Enough

    folder = own_cache / "cache" / "locks"
    folder.mkdir(parents=True)
    with (folder / f"{own_cache.name}-entry.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Enough), node_lock.alone(own_cache / "entry", enough):
            pass


def test_where_a_disk_has_no_locks_nobody_waits(own_cache, monkeypatch):
    def refuses(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with node_lock.only_one(own_cache / "entry"), node_lock.alone(own_cache / "other", lambda: None):
        pass


def test_a_cache_that_can_only_be_read_needs_no_lock(own_cache, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with node_lock.only_one(own_cache / "entry"), node_lock.alone(own_cache / "other", lambda: None):
        pass
