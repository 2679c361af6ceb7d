"""Labelled examples: every layout is read, every row that cannot be used is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.classification.makers import picture, write_images, write_table
from trainables.classification.data import class_count, kind_of, read
from trainables.classification.source import DataSource
from trainables.classification.split import Folds, fold_splits, held_out, held_out_groups, one_split
from tune_lora.errors import InputError, InputErrors


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", rows=12)


def rewrite(folder: Path, change) -> None:
    """Changes the entries of a listing: `change` takes the list and returns it."""
    listing = folder / "metadata.jsonl"
    entries = change([json.loads(line) for line in listing.read_text().splitlines()])
    listing.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def mistakes_of(source: DataSource) -> tuple[str, ...]:
    with pytest.raises(InputError) as raised:
        read(source)
    return raised.value.mistakes if isinstance(raised.value, InputErrors) else (str(raised.value),)


def test_a_subfolder_a_class(tmp_path: Path) -> None:
    for label in ("blue", "red"):
        (tmp_path / label / "deeper").mkdir(parents=True)
        picture(label, 0).save(tmp_path / label / "a.png")
        picture(label, 1).save(tmp_path / label / "deeper" / "b.png")
    found = read(DataSource(tmp_path))
    assert (found.kind, found.classes, found.labels.tolist()) == ("image", ("blue", "red"), [0, 0, 1, 1])


def test_a_listing_in_json_lines_in_csv_or_itself(images: Path) -> None:
    expected = read(DataSource(images))
    entries = [json.loads(line) for line in (images / "metadata.jsonl").read_text().splitlines()]
    (images / "metadata.jsonl").unlink()
    rows = [",".join(entry[name] for name in ("file_name", "label")) for entry in entries]
    (images / "list.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    for path in (images, images / "list.csv"):
        found = read(DataSource(path))
        assert found.classes == expected.classes and found.labels.tolist() == expected.labels.tolist()
        assert found.images == expected.images


def test_the_kind_is_told_by_what_is_there(images: Path, tmp_path: Path) -> None:
    assert kind_of(DataSource(images)) == "image"
    assert kind_of(DataSource(images, text="text")) == "image_text"
    assert kind_of(DataSource(write_table(tmp_path / "table.csv"))) == "tabular"
    (tmp_path / "notes.csv").write_text("label,note\na,x\nb,y\na,z\nb,w\n")
    source = DataSource(tmp_path / "notes.csv", text="note")
    assert kind_of(source) == "text" and read(source).texts == ("x", "y", "z", "w")


def test_columns_that_are_absent_are_named_with_those_that_are_there(images: Path) -> None:
    told = mistakes_of(DataSource(images, label="labl", text="texte", group="region"))
    assert len(told) == 3
    assert "data.label: got 'labl', which metadata.jsonl does not have; did you mean 'label'?" in told[0]
    assert "data.text: got 'texte'" in told[2] or "data.text: got 'texte'" in told[1]


def test_a_path_that_is_not_there_and_a_folder_with_nothing(tmp_path: Path) -> None:
    assert "data.path" in mistakes_of(DataSource(tmp_path / "none"))[0]
    assert "holds no images; must hold one subfolder a class" in mistakes_of(DataSource(tmp_path))[0]


def test_every_bad_row_is_listed_with_its_line(images: Path) -> None:
    (images / "001.png").write_bytes(b"no image")
    (images / "002.png").unlink()
    rewrite(images, lambda entries: [*entries[:3], {**entries[3], "label": " "}, *entries[4:]])
    told = mistakes_of(DataSource(images))
    assert len(told) == 3
    assert any("metadata.jsonl:4: label: is empty" in line for line in told)
    assert any("metadata.jsonl:2" in line and "cannot be read as an image" in line for line in told)
    assert any("metadata.jsonl:3" in line and "no such image" in line for line in told)


def test_bad_rows_are_left_out_where_that_is_asked_for_and_said(images: Path) -> None:
    (images / "001.png").write_bytes(b"no image")
    found = read(DataSource(images, on_bad="drop"))
    assert len(found) == 11
    assert "1 of 12 rows are left out" in found.notes[0] and "001.png" in found.notes[1]


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "many", rows=60)
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    told = mistakes_of(DataSource(folder))
    assert len(told) == 21 and told[-1].endswith("40 more such rows")


def test_a_class_with_one_row_cannot_be_learnt(images: Path) -> None:
    rewrite(images, lambda entries: [*entries[:-1], {**entries[-1], "label": "lonely"}])
    assert "is the only row of class 'lonely'" in mistakes_of(DataSource(images))[0]
    assert read(DataSource(images, on_bad="drop")).classes == ("blue", "green", "red")


def test_one_class_is_none(images: Path) -> None:
    rewrite(images, lambda entries: [{**entry, "label": "same"} for entry in entries])
    assert "got 1 class in 'label'; must be two at least" in mistakes_of(DataSource(images))[0]


def test_validation_rows_of_their_own_are_of_known_classes(images: Path, tmp_path: Path) -> None:
    apart = write_images(tmp_path / "apart", rows=6)
    found = read(DataSource(images, validation=apart))
    assert found.for_validation.tolist() == [False] * 12 + [True] * 6
    split = one_split(found, 0.2)
    assert split.validation.tolist() == list(range(12, 18))
    rewrite(apart, lambda entries: [{**entries[0], "label": "purple"}, *entries[1:]])
    (told,) = mistakes_of(DataSource(images, validation=apart))
    assert "class 'purple' is in no training row; must be one of blue, green, red" in told


def test_the_largest_classes(images: Path) -> None:
    rewrite(images, lambda entries: [entry for entry in entries if entry["file_name"] != "000.png"])
    source = DataSource(images)
    assert class_count(source) == 3
    kept = read(source).largest_classes(2)
    assert kept.classes == ("green", "red") and len(kept) == 8
    assert [kept.classes[label] for label in kept.labels] == ["green", "red"] * 4


def test_a_table_keeps_its_numbers_and_groups(tmp_path: Path) -> None:
    found = read(DataSource(write_table(tmp_path / "table.csv"), group="site"))
    assert found.names == ("width", "height", "noise") and found.features.shape == (60, 3)
    assert set(found.groups) == {f"site {number}" for number in range(6)}
    assert found.places[0].endswith("table.csv:2")


labels = st.lists(st.integers(0, 4), min_size=1, max_size=12).map(
    lambda ones: np.array([c for c in ones for _ in "ab"])
)


@given(labels, st.floats(0.05, 0.5), st.integers(0, 5))
def test_a_held_out_share_is_that_of_every_class(labels, share, seed) -> None:
    apart = held_out(labels, share, seed)
    for one in np.unique(labels):
        rows = labels == one
        assert abs(apart[rows].sum() - share * rows.sum()) <= 1
        assert (~apart[rows]).any()
    assert (apart == held_out(labels, share, seed)).all()


def test_folds_keep_groups_together_and_inner_rows_come_from_training(tmp_path: Path) -> None:
    found = read(DataSource(write_table(tmp_path / "table.csv"), group="site"))
    splits = fold_splits(found, Folds(3), grouped=True, inner_share=0.2)
    judged = np.concatenate([split.validation for split in splits])
    assert sorted(judged.tolist()) == list(range(60))
    for split in splits:
        sites = [{found.groups[row] for row in rows} for rows in (split.validation, split.train)]
        assert not sites[0] & sites[1]
        together = np.concatenate([split.train, split.validation, split.inner])
        assert sorted(together.tolist()) == list(range(60)) and len(split.inner)


def test_real_pictures_with_captions_are_read_whole(data: Path) -> None:
    folder = data / "fluent3d" / "base"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    found = read(DataSource(folder, label="category", text="text", group="subcategory"))
    assert (found.kind, len(found), len(found.classes)) == ("image_text", 1491, 8)
    assert found.notes == () and len(set(found.images)) == 1491 and "Smileys & Emotion" in found.classes


@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_early_stopping_looks_at_no_group_that_is_learnt_from(tmp_path, n_folds) -> None:
    examples = read(DataSource(write_table(tmp_path / "table.csv", rows=120), group="site"))
    groups = np.array(examples.groups)
    for split in fold_splits(examples, Folds(n_folds), grouped=True, inner_share=0.2):
        parts = [set(groups[rows].tolist()) for rows in (split.train, split.inner, split.validation)]
        assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == 6
        assert set(examples.labels[split.train]) == {0, 1}
        assert sorted(np.concatenate([split.train, split.inner, split.validation])) == list(range(120))


def test_a_group_that_alone_holds_a_class_is_never_held_out() -> None:
    labels, groups = np.array([0, 1] * 20 + [2] * 4), ["a"] * 10 + ["b"] * 10 + ["c"] * 10 + ["d"] * 10 + ["e"] * 4
    for seed in range(20):
        chosen = held_out_groups(labels, groups, 0.2, seed)
        assert 0 < chosen.sum() < 30 and not chosen[-4:].any()
        assert not {*np.array(groups)[chosen]} & {*np.array(groups)[~chosen]}
