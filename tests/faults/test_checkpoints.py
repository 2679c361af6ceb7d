"""Checkpoints: whole or absent, two of them, and a damaged one is never restored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables import checkpoints
from trainables.checkpoints import MANIFEST, restorable, write


def state(text: str):
    def save(folder: Path) -> None:
        (folder / "weights").write_text(text)
        (folder / "more").mkdir()
        (folder / "more" / "optimizer").write_text(text * 3)

    return save


def names(trial: Path) -> list[str]:
    return sorted(path.name for path in (trial / checkpoints.FOLDER).iterdir())


def test_the_two_newest_stay(tmp_path: Path) -> None:
    for budget in range(1, 6):
        write(tmp_path, budget, state(f"after {budget}"))
    assert names(tmp_path) == ["00000004", "00000005"]
    found, damaged = restorable(tmp_path)
    assert found is not None and found.budget == 5 and not damaged
    assert (found.path / "more" / "optimizer").read_text() == "after 5" * 3


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_and_the_one_before_it(tmp_path: Path) -> None:
    write(tmp_path, 1, state("one"))

    def full(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 2, full)
    assert names(tmp_path) == ["00000001"]


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert restorable(tmp_path) == (None, [])
    assert checkpoints.newest(tmp_path) is None


DAMAGES = st.sampled_from(["weights", "more/optimizer", MANIFEST])


@given(file=DAMAGES, what=st.sampled_from(["cut", "emptied", "gone", "changed"]), at=st.integers(0, 10**6))
@settings(max_examples=60)
def test_whatever_is_damaged_the_one_before_is_used_and_a_line_says_so(tmp_path_factory, file, what, at) -> None:
    trial = tmp_path_factory.mktemp("trial")
    for budget in (3, 4):
        write(trial, budget, state(f"after {budget}, long enough to be cut"))
    damage(trial / checkpoints.FOLDER / "00000004" / file, what, at)
    found, damaged = restorable(trial)
    if found is not None and found.budget == 4:  # a change that changes nothing, in a name of the manifest
        assert file == MANIFEST and what == "changed"
        assert (found.path / "weights").read_text() == "after 4, long enough to be cut"
        return
    assert found is not None and found.budget == 3
    assert len(damaged) == 1 and damaged[0].startswith("checkpoint/00000004 is damaged (")
    shutil.rmtree(trial)


def damage(path: Path, what: str, at: int) -> None:
    content = bytearray(path.read_bytes())
    if what == "gone":
        path.unlink()
    elif what == "changed":
        content[at % len(content)] ^= 1
        path.write_bytes(bytes(content))
    else:
        path.write_bytes(bytes(content[: at % len(content)]) if what == "cut" else b"")


def test_where_both_are_damaged_the_trial_begins_again_and_both_are_named(tmp_path: Path) -> None:
    for budget in (1, 2):
        write(tmp_path, budget, state("x"))
        (tmp_path / checkpoints.FOLDER / f"{budget:08d}" / "weights").write_text("y")
    found, damaged = restorable(tmp_path)
    assert found is None and len(damaged) == 2


def test_what_a_later_incarnation_wrote_is_newer_and_is_not_touched_by_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, 3, state("first"), incarnation=1)
    write(tmp_path, 4, state("second"), incarnation=2)
    for budget in (4, 5, 6):  # one that was cut off, and does not see that it was replaced
        write(tmp_path, budget, state("zombie"), incarnation=1)
    found, _ = restorable(tmp_path)
    assert found is not None and (found.budget, found.incarnation) == (4, 2)
    assert (found.path / "weights").read_text() == "second"
    write(tmp_path, 5, state("second"), incarnation=2)
    found, _ = restorable(tmp_path)
    assert found is not None and (found.path / "weights").read_text() == "second"
    assert names(tmp_path) == ["00000004", "00000005"]


def test_a_manifest_says_what_each_file_is(tmp_path: Path) -> None:
    manifest = json.loads((write(tmp_path, 1, state("abc"), incarnation=4) / MANIFEST).read_text())
    assert manifest["incarnation"] == 4
    assert manifest["files"]["weights"] == [3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
    assert set(manifest["files"]) == {"weights", "more/optimizer"}
