"""Machines that share nothing but a mirror: one of them drives a study."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.tune_lora.studies import RATES
from trainables.mirror_store import MirrorStore
from tune_lora import leases, mirror_driver, mirroring, store
from tune_lora.errors import InputError
from tune_lora.spec import StudySpec, from_mapping
from tune_lora.study import run

pytestmark = pytest.mark.alone

KEY = "mine/driver.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_driver, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(mirror_driver, "SETTLE_SECONDS", 0.05)


def study(folder: Path, machine: str, **changes: Any) -> StudySpec:
    return from_mapping(
        {
            "name": "mine",
            "trainer": "curve",
            "space": RATES,
            "results": str(folder / machine),
            "resources": {"cpu": 1, "gpu": 0, "mirror": (folder / "mirror").as_uri()},
            "tracking": {"wandb": "off"},
            **changes,
        },
        "study",
    )


def place(folder: Path) -> MirrorStore:
    return MirrorStore((folder / "mirror").as_uri())


def left_behind(folder: Path, **changes: Any) -> None:
    """What a driver wrote that then wrote no more."""
    lease = {**leases.mine(0.0).as_mapping(), "count": 7, "id": "another", **changes}
    place(folder).put_bytes(json.dumps(lease).encode(), KEY)


def test_a_second_machine_is_refused_while_the_first_one_drives(tmp_path: Path) -> None:
    with mirror_driver.fenced(study(tmp_path, "one"), lambda _: None):
        with pytest.raises(InputError, match=r"study 'mine' is running already \(process \d+ on .*\)") as told:
            run(study(tmp_path, "two"))
        assert "\n" not in str(told.value)
        assert json.loads(place(tmp_path).get_bytes(KEY) or b"")["process"]
    assert not (tmp_path / "two" / "mine" / "study.db").exists()


def test_a_machine_that_is_gone_is_waited_for_and_said_once(tmp_path: Path) -> None:
    left_behind(tmp_path, machine="elsewhere/boot/1", process=41)
    said: list[str] = []
    with mirror_driver.fenced(study(tmp_path, "two"), said.append):
        assert json.loads(place(tmp_path).get_bytes(KEY) or b"")["id"] != "another"
    assert len(said) == 1 and "process 41 on elsewhere" in said[0] and "waiting 1 s" in said[0]


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    left_behind(tmp_path, process=ended.pid, began=1.0)
    said: list[str] = []
    with mirror_driver.fenced(study(tmp_path, "two"), said.append):
        assert said == []


def test_what_is_no_lease_is_waited_for_like_one(tmp_path: Path) -> None:
    place(tmp_path).put_bytes(b"[1, 2", KEY)
    said: list[str] = []
    with mirror_driver.fenced(study(tmp_path, "two"), said.append):
        assert len(said) == 1


def test_a_driver_that_leaves_in_order_is_not_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    for machine in ("one", "two"):
        with mirror_driver.fenced(study(tmp_path, machine), said.append):
            assert place(tmp_path).has(KEY)
        assert not place(tmp_path).has(KEY)
    assert said == []


def test_a_driver_that_was_replaced_hears_of_it_and_copies_nothing_more(tmp_path: Path) -> None:
    spec, replaced = study(tmp_path, "one"), threading.Event()
    said: list[str] = []
    spec.folder.mkdir(parents=True)
    held = store.open_study(spec.storage_url, "mine", "minimize")
    with (
        mirror_driver.fenced(spec, said.append, replaced=replaced.set) as fence,
        mirroring.kept(held, spec, said.append, fence),
    ):
        left_behind(tmp_path, machine="elsewhere/boot/1", process=41)
        assert replaced.wait(60)
    assert "taken over by process 41 on elsewhere" in said[0]
    kept = place(tmp_path).listing("mine")
    assert "study.db" not in kept and "study.yaml" not in kept
    assert json.loads(place(tmp_path).get_bytes(KEY) or b"")["id"] == "another"


def test_a_study_without_a_mirror_or_in_a_server_has_no_fence(tmp_path: Path) -> None:
    alone = study(tmp_path, "one", resources={"cpu": 1, "gpu": 0})
    shared = study(tmp_path, "one", storage="postgresql://nobody@127.0.0.1:1/none")
    for spec in (alone, shared):
        with mirror_driver.fenced(spec, lambda _: None) as fence:
            assert fence is None
