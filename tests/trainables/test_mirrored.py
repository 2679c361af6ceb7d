"""A mirrored trial behind Ray's own trainable interface, without a cluster; its object storage is a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from trainables.curve import Curve
from trainables.mirror import Mirror
from trainables.mirror_store import MirrorAway, MirrorStore
from trainables.mirrored import mirrored
from trainables.node_folders import NODE_FOLDER
from trainables.ray_adapter import Lost, trainable_for


class Node:
    """A machine with a disk of its own, and what it may start there."""

    def __init__(self, name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk, self._root, self._monkeypatch = root / name, root, monkeypatch
        self.trainable = mirrored(
            trainable_for(Curve(), "score", threads=1), Mirror(f"file://{root}/mirror", "study", "token")
        )

    def config(self, number: int = 0) -> dict[str, Any]:
        self._monkeypatch.setenv(NODE_FOLDER, str(self.disk))
        return {
            "params": {"learning_rate": 1e-3, "max_train_epochs": 4},
            "trial": {"number": number, "folder": str(self._root / "trials" / str(number)), "seed": 1},
        }

    def start(self, number: int = 0) -> Any:
        return self.trainable(self.config(number))

    def folder(self, number: int = 0) -> Path:
        return self.disk / "study-token" / "trials" / str(number)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    return Node("one", tmp_path, monkeypatch), Node("two", tmp_path, monkeypatch)


def test_a_trial_runs_to_its_end_and_all_of_it_is_mirrored(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    trial = nodes[0].start()
    results = [trial.train() for _ in range(4)]
    assert [result["budget"] for result in results] == [1, 2, 3, 4] and results[-1]["final"]
    kept = MirrorStore(f"file://{tmp_path}/mirror").listing("study/trials/0")
    assert "reports/0001.jsonl" in kept and "checkpoints/0001-00000004/.manifest.json" in kept


def test_a_trial_goes_on_where_its_node_and_the_nodes_disk_are_lost(nodes: tuple[Node, Node]) -> None:
    first = nodes[0].start()
    told = [first.train() for _ in range(2)]
    shutil.rmtree(nodes[0].disk)
    second = nodes[1].start()
    again = second.train()
    assert (again["budget"], again["score"]) == (2, told[-1]["score"])
    assert [second.train()["budget"] for _ in range(2)] == [3, 4]


def test_a_reused_worker_mirrors_each_trial_under_its_own_start(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    lost = nodes[0].start(1)
    lost.train()
    worker = nodes[1].start(0)
    worker.train()
    assert worker.reset(nodes[1].config(1))
    assert [worker.train()["budget"] for _ in range(2)] == [1, 2]
    place = MirrorStore(f"file://{tmp_path}/mirror")
    assert sorted(place.listing("study/trials/0/reports")) == ["0001.claim", "0001.jsonl"]
    assert sorted(place.listing("study/trials/1/reports")) == ["0001.claim", "0001.jsonl", "0002.claim", "0002.jsonl"]


def test_a_worker_that_is_set_up_and_not_used_leaves_the_trial_alone(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    trial = nodes[0].start()
    trial.train()
    unused = nodes[0].start()
    unused.reset(nodes[0].config(1))
    assert not (nodes[0].folder() / ".mirrored").exists(), "the trial's folder may be removed while it is trained"
    nodes[1].start()
    assert [trial.train()["budget"] for _ in range(2)] == [2, 3]


def test_a_node_that_comes_back_finds_in_the_mirror_that_its_trial_goes_on_elsewhere(nodes: tuple[Node, Node]) -> None:
    cut_off = nodes[0].start()
    cut_off.train()
    heir = nodes[1].start()
    assert heir.train()["budget"] == 1
    told = cut_off.train()
    assert told["done"] and told["superseded"] and "budget" not in told
    assert [heir.train()["budget"] for _ in range(3)] == [2, 3, 4]


def test_where_the_mirror_is_away_the_trial_is_lost_at_its_first_step(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise MirrorAway("s3://runs: nothing answers there")

    monkeypatch.setattr(MirrorStore, "listing", away)
    trial = nodes[0].start()
    with pytest.raises(Lost, match="nothing answers there"):
        trial.train()
