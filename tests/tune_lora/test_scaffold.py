"""`init`: by what a path is, a commented study that is valid, has its space written out, and trains."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search_spaces.space import Space
from trainables import demo_character, demo_logbook
from trainables.protocol import TrialContext
from tune_lora import build, scaffold, spec
from tune_lora.errors import InputError
from tune_lora.scaffold import Asked


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 60, (64, 64, 3)).astype("uint8") + np.uint8(shade % 190)
    Image.fromarray(pixels).save(path)


def by_class(folder: Path) -> Path:
    for index in range(24):
        picture(folder / "my shapes" / ("dark" if index % 2 else "light") / f"{index}.png", 150 * (index % 2) + index)
    return folder / "my shapes"


def listed(folder: Path, *, captions: bool = False) -> Path:
    lines = []
    for index in range(24):
        picture(folder / "listed" / f"{index}.png", 150 * (index % 2) + index)
        entry = {"file_name": f"{index}.png", "category": "dark" if index % 2 else "light"}
        lines.append(json.dumps(entry | ({"text": f"picture {index}"} if captions else {})))
    (folder / "listed" / "metadata.jsonl").write_text("\n".join(lines))
    return folder / "listed"


def table(folder: Path, name: str = "flowers.csv", target: str = "species") -> Path:
    rng = np.random.default_rng(0)
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "width", target])
        for index in range(60):
            kind = index % 3
            writer.writerow([f"{rng.normal(kind, 0.3):.3f}", f"{rng.normal(-kind, 0.3):.3f}", "abc"[kind]])
    return folder / name


def numbers(folder: Path, name: str, n: int) -> Path:
    rng = np.random.default_rng(n)
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x1", "x2", "chi"])
        for _ in range(n):
            x = rng.normal(size=2)
            writer.writerow([f"{x[0]:.3f}", f"{x[1]:.3f}", f"{x.sum():.3f}"])
    return folder / name


def captioned(folder: Path) -> Path:
    demo_character.write_dataset(folder / "bobo", count=6, size=64)
    (folder / "bobo" / "dataset.toml").unlink()
    return folder / "bobo"


def examples(folder: Path) -> Path:
    return demo_logbook.write_dataset(folder / "log.jsonl")


FITS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "captioned images": (captioned, "diffusion_lora", {}),
    "a subfolder a class": (by_class, "classifier", {}),
    "metadata with a label": (listed, "classifier", {}),
    "metadata with another label": (listed, "classifier", {"target": "category"}),
    "a table": (table, "classifier", {}),
    "a table with a target": (lambda folder: table(folder, target="kind"), "classifier", {"target": "kind"}),
    "examples of text": (examples, "llm_lora", {}),
}


@pytest.mark.parametrize("what", FITS)
def test_what_is_there_gets_a_study_that_is_valid_and_commented(what: str, tmp_path: Path) -> None:
    make, trainer, said = FITS[what]
    path = make(tmp_path)
    file = scaffold.write_study_file(Asked(path, n_trials=7, **said))
    assert file == (path if path.is_dir() else tmp_path) / "study.yaml"
    found = spec.load(file)
    assert (found.trainer, found.budget.n_trials) == (trainer, 7)
    if trainer == "llm_lora":  # whose base is a package of its own
        assert build.space_of(found).parameters
    else:
        assert build.plan(found).space.parameters
    text = file.read_text()
    assert f"tune-lora run {shlex.quote(str(file))} " in text and text.count("#") > 8


@pytest.mark.parametrize("make", [by_class, table])
def test_a_classifier_from_init_trains(make: Any, tmp_path: Path) -> None:
    ready = build.plan(spec.load(scaffold.write_study_file(Asked(make(tmp_path)))))
    config = ready.space.resolve(ready.space.defaults()) | {"training.epochs": 2}
    (tmp_path / "trial").mkdir()
    last = list(ready.trainer.run(TrialContext(config, tmp_path / "trial")))[-1]
    assert last.final and 0 <= last.metrics["val_acc"] <= 1


def test_the_ranges_of_a_classifier_are_those_that_ship(tmp_path: Path) -> None:
    file = scaffold.write_study_file(Asked(table(tmp_path)))
    conservative, comprehensive = Space.load("classifier_conservative"), Space.load("classifier_comprehensive")
    written = build.space_of(spec.load(file)).parameters
    assert {name: one.domain for name, one in written.items()} == {
        name: one.domain for name, one in conservative.parameters.items()
    }
    every = file.read_text().replace("    # optimizer.", "    optimizer.").replace("    # scheduler.", "    scheduler.")
    every = every.replace("    scheduler.type: cosine\n", "").replace("    optimizer.type: adam\n", "")
    (tmp_path / "every.yaml").write_text(every)
    more = build.space_of(spec.load(tmp_path / "every.yaml")).parameters
    for name in ("optimizer.momentum", "optimizer.weight_decay", "scheduler.step_size", "scheduler.gamma"):
        assert more[name].domain == comprehensive.parameters[name].domain


def test_a_newcomer_is_told_the_order(tmp_path: Path) -> None:
    text = scaffold.write_study_file(Asked(table(tmp_path))).read_text()
    assert "learning rate, batch size, epochs, scheduler, architecture, optimizer" in text
    marks = [text.index(f"# {number}. ") for number in range(1, 7)]
    assert marks == sorted(marks)


def test_the_space_of_a_language_model_is_the_one_that_ships(tmp_path: Path) -> None:
    written = build.space_of(spec.load(scaffold.write_study_file(Asked(examples(tmp_path)))))
    shipped = Space.load("llm_lora")
    assert written.parameters == shipped.parameters
    assert [prior.params for prior in written.priors] == [prior.params for prior in shipped.priors]
    assert written.fixed == shipped.fixed


def test_two_tables_are_a_transfer(tmp_path: Path) -> None:
    measured, computed = numbers(tmp_path, "measured.csv", 60), numbers(tmp_path, "computed.csv", 90)
    file = scaffold.write_study_file(Asked(measured, target="chi", stage1=computed))
    ready = build.plan(spec.load(file))
    assert ready.spec.trainer == "two_stage"
    shipped = Space.load("transfer_aware").parameters
    assert {name: one.domain for name, one in ready.space.parameters.items()} == {
        name: one.domain for name, one in shipped.items()
    }


def test_a_transfer_has_the_length_of_a_study_of_pre_training_and_others_are_short(tmp_path: Path) -> None:
    measured, computed = numbers(tmp_path, "measured.csv", 60), numbers(tmp_path, "computed.csv", 90)
    asked = Asked(measured, target="chi", stage1=computed)
    found = spec.load(scaffold.write_study_file(asked))
    assert (found.budget.n_trials, found.budget.timeout_hours) == (50, 48)
    assert found.scheduler.settings(by_fold=True)["p_threshold"] == 0.3
    said = spec.load(scaffold.write_study_file(replace(asked, n_trials=7), output=tmp_path / "short.yaml"))
    assert said.budget.n_trials == 7
    other = spec.load(scaffold.write_study_file(Asked(table(tmp_path)), output=tmp_path / "flowers.yaml"))
    assert other.budget.n_trials == 20


def test_a_transfer_says_where_entities_are_to_be_named(tmp_path: Path) -> None:
    measured, computed = numbers(tmp_path, "measured.csv", 60), numbers(tmp_path, "computed.csv", 90)
    file = scaffold.write_study_file(Asked(measured, target="chi", stage1=computed))
    assert spec.load(file).transfer.stage1.key == ()
    assert file.read_text().count("    # key: COLUMN    # which entity a row is, in both tables") == 2
    file.write_text(file.read_text().replace("# key: COLUMN", "key: x1"))
    found = spec.load(file).transfer
    assert found.stage1.key == found.stage2.key == ("x1",)


def test_where_several_fit_one_line_names_them(tmp_path: Path) -> None:
    path = listed(tmp_path, captions=True)
    with pytest.raises(InputError) as caught:
        scaffold.write_study_file(Asked(path))
    message = str(caught.value)
    assert "lora (captions in metadata.jsonl)" in message and "--task" in message
    assert "classifier (images with the column 'category' in metadata.jsonl)" in message
    assert len(message.splitlines()) == 1
    found = spec.load(scaffold.write_study_file(Asked(path), task="classifier"))
    assert found.trainer == "classifier"
    assert "# text: text" in (path / "study.yaml").read_text()


def nothing(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def program(folder: Path) -> Path:
    (folder / "a.py").write_text("pass\n")
    return folder / "a.py"


@pytest.mark.parametrize(
    ("make", "said", "task", "expected"),
    [
        (lambda folder: folder / "absent", {}, None, "does not exist; must be a folder of images, a table, or a file"),
        (lambda folder: table(folder, target="kind"), {}, None, "--target must be one of length, width, kind"),
        (table, {"target": "specis"}, None, "did you mean 'species'?"),
        (program, {}, None, "nothing known is in it"),
        (nothing, {}, None, "image"),
        (by_class, {"target": "x"}, None, "the classes are the subfolders; must be left out"),
        (nothing, {}, "classifier", "holds 0 subfolders of images"),
        (table, {}, "transfer", "needs two tables; must have --stage1 FILE"),
        (by_class, {}, "llm", "must be a file of examples"),
        (table, {}, "lora", "is a file; must be a folder of captioned images"),
        (table, {}, "clasifier", "--task: got 'clasifier'; must be one of lora, classifier, llm, transfer"),
    ],
)
def test_what_cannot_be_is_one_line(make: Any, said: dict[str, Any], task: str, expected: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        scaffold.write_study_file(Asked(path, **said), task=task)
    assert expected in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob("study.yaml"))


def test_a_study_file_that_is_there_is_kept(tmp_path: Path) -> None:
    asked = Asked(table(tmp_path))
    file = scaffold.write_study_file(asked)
    before = file.read_text()
    with pytest.raises(InputError, match="exists and is kept"):
        scaffold.write_study_file(asked)
    assert file.read_text() == before


def written(folder: Path, columns: dict[str, Any], name: str = "rows.csv") -> Path:
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return folder / name


RNG = np.random.default_rng(7)
FLOATS = [f"{value:.4f}" for value in RNG.normal(size=120)]
NO_CLASSES = {
    "different numbers": (FLOATS, "holds numbers"),
    "repeated numbers": ([f"{number % 40 + 0.5}" for number in range(120)], "holds numbers"),
    "whole numbers that hardly repeat": ([str(number * 3) for number in range(120)], "120 different values in 120"),
    "words that hardly repeat": ([f"entity {number}" for number in range(120)], "120 different values in 120"),
}


@pytest.mark.parametrize("what", NO_CLASSES)
@pytest.mark.parametrize("said", [{}, {"target": "y"}])
def test_what_is_predicted_must_be_classes(what: str, said: dict[str, str], tmp_path: Path) -> None:
    values, expected = NO_CLASSES[what]
    with pytest.raises(InputError) as caught:
        scaffold.write_study_file(Asked(written(tmp_path, {"a": FLOATS, "y": values}), **said))
    (line,) = str(caught.value).splitlines()
    assert "rows.csv: 'y'" in line and expected in line and "--target" in line and "--stage1 FILE" in line
    assert not (tmp_path / "study.yaml").exists()


@pytest.mark.parametrize("values", [["0", "1", "2"], ["0.0", "1.0", "2.0"], ["yes", "no", "perhaps"]])
def test_a_few_whole_numbers_are_classes(values: list[str], tmp_path: Path) -> None:
    file = scaffold.write_study_file(Asked(written(tmp_path, {"a": FLOATS, "y": values * 40})))
    assert build.plan(spec.load(file))


def test_features_are_named_and_what_only_tells_rows_apart_is_left_out_with_a_word(tmp_path: Path) -> None:
    numbered = [str(number) for number in range(120)]
    columns = {
        "id": [str(number % 30) for number in range(120)],
        "": numbered,
        "length": FLOATS,
        "sample_id": numbered,
        "colour": ["red", "blue"] * 60,
        "counted": numbered,
        "petals": ["3", "4", "5"] * 40,
        "class": ["a", "b", "c"] * 40,
    }
    asked = Asked(written(tmp_path, columns))
    file = scaffold.write_study_file(asked)
    ready = build.plan(spec.load(file))
    assert ready.spec.data is not None and ready.spec.data.features == ("length", "petals")
    text, told = file.read_text(), "\n".join(scaffold.told(asked, "classifier"))
    for said in (text, told):
        for name in ("id", "sample_id", "counted"):
            assert f"'{name}'" in said
        assert "'colour'" in said and "guessed" in said
    assert "length, petals" in told and "'class'" in told


def test_what_was_said_is_not_called_a_guess(tmp_path: Path) -> None:
    asked = Asked(table(tmp_path, target="kind"), target="kind")
    assert "guessed" not in scaffold.write_study_file(asked).read_text() + "".join(scaffold.told(asked, "classifier"))
    assert scaffold.told(Asked(captioned(tmp_path)), "lora") == []


def test_a_table_with_only_row_numbers_has_nothing_to_learn_from(tmp_path: Path) -> None:
    columns = {"id": [str(number) for number in range(60)], "label": ["a", "b"] * 30}
    with pytest.raises(InputError, match=r"rows\.csv: .*no column of numbers .*'id'"):
        scaffold.write_study_file(Asked(written(tmp_path, columns)))
