"""Fingerprints of data: whatever changes what is learnt changes them, and where the data lies does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainables import fingerprints
from trainables.classification.source import DataSource
from trainables.classifier import Classifier
from trainables.curve import Curve
from trainables.diffusion_lora import DiffusionLora
from trainables.llm_lora import LlmLora
from trainables.lora.text.settings import TextSettings
from trainables.protocol import Fingerprinted
from trainables.tables import TableSource
from trainables.tables.source import LabelSource
from trainables.transfer.data import TransferTables
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (shade, 90, 255 - shade)).save(path)


def table(path: Path, rows: int = 12) -> None:
    lines = [f"{row % 5},{row * 0.25},{'ab'[row % 2]},{row % 3}" for row in range(rows)]
    path.write_text("\n".join(["x,y,label,group", *lines]) + "\n")


def of_table(folder: Path) -> Classifier:
    table(folder / "rows.csv")
    return Classifier(DataSource(folder / "rows.csv", features=("x", "y"), group="group"))


def of_pictures(folder: Path) -> Classifier:
    for shade in range(8):
        picture(folder / "ab"[shade % 2] / f"{shade}.png", shade * 20)
    return Classifier(DataSource(folder))


def of_captions(folder: Path) -> Classifier:
    lines = []
    for shade in range(8):
        picture(folder / f"{shade}.png", shade * 20)
        lines.append(f'{{"file_name": "{shade}.png", "label": "{"ab"[shade % 2]}", "words": "shade {shade}"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return Classifier(DataSource(folder, text="words"))


def of_two_tables(folder: Path) -> TwoStage:
    for name in ("first.csv", "second.csv", "labels.csv"):
        table(folder / name)
    first = TableSource(folder / "first.csv", features=("x",), target="y")
    labels = LabelSource(folder / "labels.csv", "group")
    return TwoStage(TransferTables(first, TableSource(folder / "second.csv", ("x",), "y", labels=labels)))


def of_examples(folder: Path) -> LlmLora:
    for name in ("train.jsonl", "held.jsonl"):
        lines = [f'{{"prompt": "{n} + {n}", "completion": "{2 * n}"}}' for n in range(6)]
        (folder / name).write_text("\n".join(lines))
    return LlmLora("smollm2", str(folder / "train.jsonl"), TextSettings(validation=str(folder / "held.jsonl")))


def of_a_character(folder: Path) -> DiffusionLora:
    for shade in range(6):
        picture(folder / f"{shade}.png", shade * 30)
        (folder / f"{shade}.txt").write_text(f"a face, shade {shade}")
    return DiffusionLora("tiny-sd", str(folder))


MAKERS: list[Callable[[Path], Fingerprinted]] = [
    of_table, of_pictures, of_captions, of_two_tables, of_examples, of_a_character,
]  # fmt: skip


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("make", MAKERS)
def test_a_copy_elsewhere_with_other_times_is_the_same(make: Callable[[Path], Fingerprinted], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    before = make(tmp_path / "one").fingerprint()
    (tmp_path / "other").mkdir()
    again = make(tmp_path / "other")
    for path in (tmp_path / "other").rglob("*"):
        os.utime(path, (1e9, 1e9))
    shutil.rmtree(tmp_path / "one")
    assert isinstance(again, Fingerprinted)
    assert again.fingerprint() == before


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (of_table, lambda folder: replaced(folder / "rows.csv", "3,0.75,b,0", "3,0.76,b,0")),
        (of_table, lambda folder: replaced(folder / "rows.csv", "3,0.75,b,0", "3,0.75,a,0")),
        (of_table, lambda folder: replaced(folder / "rows.csv", "3,0.75,b,0", "3,0.75,b,1")),
        (of_table, lambda folder: replaced(folder / "rows.csv", "3,0.75,b,0\n", "")),
        (of_pictures, lambda folder: picture(folder / "a" / "0.png", 1)),
        (of_pictures, lambda folder: (folder / "a" / "0.png").rename(folder / "b" / "00.png")),
        (of_captions, lambda folder: replaced(folder / "metadata.jsonl", "shade 3", "shade 4")),
        (of_captions, lambda folder: picture(folder / "3.png", 1)),
        (of_two_tables, lambda folder: replaced(folder / "first.csv", "0.75", "0.76")),
        (of_two_tables, lambda folder: replaced(folder / "second.csv", "0.75", "0.76")),
        (of_two_tables, lambda folder: replaced(folder / "labels.csv", "0.75,b,0", "0.75,b,1")),
        (of_examples, lambda folder: replaced(folder / "train.jsonl", "3 + 3", "3 + 4")),
        (of_examples, lambda folder: replaced(folder / "held.jsonl", "3 + 3", "3 + 4")),
        (of_a_character, lambda folder: replaced(folder / "3.txt", "shade", "light")),
        (of_a_character, lambda folder: picture(folder / "3.png", 1)),
    ],
)
def test_what_changes_the_learning_changes_the_fingerprint(
    make: Callable[[Path], Fingerprinted], change: Callable[[Path], object], tmp_path: Path
) -> None:
    trainer = make(tmp_path)
    before = trainer.fingerprint()
    change(tmp_path)
    assert not fingerprints.same(before, trainer.fingerprint())


def test_of_large_folders_sizes_count_in_place_of_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for path in files:
        path.write_bytes(b"0123456789")
    assert fingerprints.WHOLE >= 100 * 2**20
    monkeypatch.setattr(fingerprints, "WHOLE", 15)
    before = fingerprints.fingerprint([], files)
    files[1].write_bytes(b"9876543210")
    assert fingerprints.fingerprint([], files) == before  # it is not read
    files[1].write_bytes(b"987654321")
    assert fingerprints.fingerprint([], files) != before


def test_a_drawn_problem_is_what_it_is_drawn_from() -> None:
    one, other = (TwoStage(SyntheticTransfer(seed=seed)) for seed in (0, 1))
    assert one.fingerprint() == TwoStage().fingerprint() != other.fingerprint()


def test_values_do_not_run_into_each_other() -> None:
    made = [fingerprints.fingerprint(values) for values in (["ab", "c"], ["a", "bc"], ["abc"], [["ab", "c"]])]
    assert len(set(made)) == 4


def test_fingerprints_of_another_form_say_nothing() -> None:
    now = fingerprints.fingerprint(["a"])
    assert fingerprints.same("0:abc", now) and not fingerprints.same(f"{fingerprints.FORM}:abc", now)


def test_a_trainer_without_data_has_none() -> None:
    assert not isinstance(Curve(), Fingerprinted)
