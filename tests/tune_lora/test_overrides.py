"""`--set key=value`: what a key means, and that nothing else changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.space import Space
from tests.tune_lora.studies import RATES
from trainables.rules import Rule, whole
from tune_lora import build, overrides
from tune_lora.errors import InputError
from tune_lora.names import all_full, full, matching, short
from tune_lora.overrides import Known, Meaning, meaning
from tune_lora.spec import StudySpec, from_mapping, load

ROOT = Path(__file__).parents[2]
STUDIES = sorted([*(ROOT / "search_spaces" / "studies").glob("*.yaml"), *(ROOT / "examples").rglob("study.yaml")])
assert len(STUDIES) > 5
DOTTED: dict[str, Any] = {
    "name": "dotted",
    "parameters": {
        "optimizer.lr": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "training.batch_size": {"type": "categorical", "choices": [32, 64]},
        "scheduler.gamma": {"type": "uniform", "low": 0.1, "high": 0.5},
        "width": {"type": "int", "low": 1, "high": 9},
    },
    "derived": {"area": "width * width", "volume": "area * 2"},
    "fixed": {"depth": 3},
}
RULES: dict[str, Rule] = {"lr": whole(), "head.lr": whole(), "rank": whole(), "rank.*": whole(), "precision": whole()}
KNOWN = Known(
    frozenset({"optimizer.lr", "training.batch_size", "scheduler.gamma", "width"}),
    RULES,
    frozenset({"search", "search.seed", "evaluation.seed", "budget.n_trials", "precision", "scheduler", "fixed"}),
    frozenset({"fixed", "objective.weights"}),
)
names = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join), min_size=1, max_size=8, unique=True
)


def study(**more: Any) -> StudySpec:
    return from_mapping({"name": "s", "trainer": "curve", "space": RATES, **more}, "test")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("optimizer.lr=0.01", "optimizer.lr", 0.01),
        ("lr=1e-4", "lr", 1e-4),
        ("training.batch_size=64", "training.batch_size", 64),
        ("use_dora=true", "use_dora", True),
        ("budget.plateau=null", "budget.plateau", None),
        ("name=a=b", "name", "a=b"),
        ("evaluation.prompts=[a, b]", "evaluation.prompts", ["a", "b"]),
        ("scheduler={name: asha, grace: 3}", "scheduler", {"name": "asha", "grace": 3}),
        ("note=", "note", None),
    ],
)
def test_a_value_has_the_type_that_yaml_gives_it(text: str, key: str, value: Any) -> None:
    found = overrides.parse([text])
    assert found == {key: value} and type(found[key]) is type(value)


@given(
    st.dictionaries(st.from_regex(r"[a-z]+(\.[a-z]+)?", fullmatch=True), st.integers() | st.booleans() | st.floats())
)
def test_whatever_yaml_writes_is_read_back(values: dict[str, Any]) -> None:
    texts = [f"{key}={yaml.safe_dump([value]).strip()}" for key, value in values.items()]
    found = overrides.parse(texts)
    assert found.keys() == values.keys()
    for key, value in values.items():
        assert found[key] == [value] or (math.isnan(value) and math.isnan(found[key][0]))


def test_every_mistake_of_a_command_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        overrides.parse(["lr", "=3", "a=1", "a=2", "b=[1"])
    assert len(str(caught.value).splitlines()) == 4
    assert "--set: got 'lr'; must be a name, = and a value" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "kind", "name"),
    [
        ("optimizer.lr", "setting", "optimizer.lr"),
        ("lr", "setting", "optimizer.lr"),  # what is tried comes before what the trainer also knows
        ("fixed.lr", "setting", "optimizer.lr"),
        ("batch_size", "setting", "training.batch_size"),
        ("scheduler.gamma", "setting", "scheduler.gamma"),
        ("rank.up", "setting", "rank.up"),
        ("head.lr", "setting", "head.lr"),
        ("search.seed", "place", "search.seed"),
        ("n_trials", "place", "budget.n_trials"),
        ("study.n_trials", "place", "budget.n_trials"),
        ("scheduler", "place", "scheduler"),
        ("objective.weights.identity", "place", "objective.weights.identity"),
        ("study.precision", "place", "precision"),
        ("fixed.precision", "setting", "precision"),
    ],
)
def test_what_a_key_means(key: str, kind: Any, name: str) -> None:
    assert meaning(key, KNOWN) == Meaning(kind, name)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("seed", "may be one of evaluation.seed, search.seed; must be a whole name"),
        ("precision", "is a setting of the trainer and a place in the study file; must be fixed.precision or study.p"),
        ("optimiser.lr", "did you mean 'optimizer.lr'?"),
        ("fixed.nothing", "unknown"),
        ("study.optimizer.lr", "unknown"),
    ],
)
def test_a_key_that_means_nothing_or_too_much_is_one_line(key: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        meaning(key, KNOWN)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


@given(names)
def test_a_short_name_means_one_name_and_a_whole_name_itself(known: list[str]) -> None:
    shown = short(known)
    assert set(shown) == set(known) and len(set(shown.values())) == len(known)
    for name in known:
        assert full(name, known, "name") == name
        if shown[name] not in set(known) - {name}:
            assert matching(shown[name], known) in ([name], [shown[name]])


@given(names, st.sampled_from("abc"))
def test_a_name_is_found_only_where_nothing_else_is_called_so(known: list[str], key: str) -> None:
    found = matching(key, known)
    if len(found) == 1:
        assert full(key, known, "name") == found[0]
    else:
        with pytest.raises(InputError):
            full(key, known, "name")


def test_a_name_that_means_nothing_alone_is_shown_whole() -> None:
    assert short(["network_dim", "network_dim.mid_block", "optimizer.lr", "rank.0", "a.x", "b.x"]) == {
        "network_dim": "network_dim",
        "network_dim.mid_block": "network_dim.mid_block",
        "optimizer.lr": "lr",
        "rank.0": "rank.0",
        "a.x": "a.x",
        "b.x": "b.x",
    }


def test_several_names_are_looked_up_at_once() -> None:
    assert all_full(["lr", "optimizer.lr"], ["optimizer.lr", "a.x", "b.x"], "hyperparameter") == ["optimizer.lr"]
    with pytest.raises(InputError) as caught:
        all_full(["x", "y"], ["a.x", "b.x"], "hyperparameter")
    assert len(str(caught.value).splitlines()) == 2


def test_a_parameter_is_pinned_and_the_rest_of_the_study_stays() -> None:
    before = study()
    after = overrides.in_study(before, {"learning_rate": 1e-3, "search.seed": 7, "n_trials": 4})
    assert after.fixed == {"learning_rate": 1e-3}
    assert (after.search.seed, after.budget.n_trials) == (7, 4)
    assert list(build.space_of(after).parameters) == ["max_train_epochs"]
    undone = after.model_copy(update={"fixed": {}, "search": before.search, "budget": before.budget})
    assert undone == before


@given(st.integers(1, 200), st.integers(0, 99), st.sampled_from(["tpe", "random"]))
def test_places_are_independent_of_each_other_and_of_their_order(n: int, seed: int, sampler: str) -> None:
    given_ = {"budget.n_trials": n, "search.seed": seed, "search.sampler": sampler}
    first = overrides.in_study(study(), given_)
    assert first == overrides.in_study(study(), dict(reversed(given_.items())))
    one_by_one = study()
    for key, value in given_.items():
        one_by_one = overrides.in_study(one_by_one, {key: value})
    assert first == one_by_one


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_of_every_shipped_study_one_place_changes_and_nothing_else(path: Path) -> None:
    before = load(path)
    after = overrides.in_study(before, {"search.seed": 977, "budget.n_trials": 3})
    assert (after.search.seed, after.budget.n_trials) == (977, 3)
    assert after.model_copy(update={"search": before.search, "budget": before.budget}) == before


def test_nothing_given_is_nothing_changed() -> None:
    assert overrides.in_study(study(), {}) == study()


def test_another_space_is_looked_at_before_its_names() -> None:
    changed = overrides.in_study(study(), {"lr": 0.01, "space": DOTTED})
    assert changed.fixed == {"optimizer.lr": 0.01}


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"budget.n_trials": 0}, "--set: budget.n_trials: got 0; must be"),
        ({"search.sampler": "tpee"}, "search.sampler"),
        ({"budget.ntrials": 3}, "did you mean 'budget.n_trials'?"),
        ({"objective.targets.clip": 1, "objective.targets": "spec"}, "set targets as a whole"),
        ({"learning_rate": 1, "fixed.learning_rate": 2}, "given twice"),
    ],
)
def test_a_wrong_value_names_its_place(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        overrides.in_study(study(), dict(reversed(given_.items())))
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


PATHS: dict[str, Any] = {
    "data.path": "table.csv",
    "data.validation": "held.csv",
    "data.weights": "weights.pth",
    "transfer.stage1.path": "first.csv",
    "transfer.stage2.path": "second.csv",
    "transfer.stage2.labels.path": "labels.csv",
    "dataset.path": "images",
    "text.path": "examples.jsonl",
    "text.validation": "judged.jsonl",
    "base": "model.safetensors",
    "space": "rates.yaml",
    "evaluation.clip": "clip.pt",
    "search.start_with": "config.yaml",
}


def about_everything() -> StudySpec:
    """A study with every section that names a path, none of which is there."""
    table = {"path": "/absent.csv", "target": "y"}
    labels = {"path": "/absent.csv", "target": "soluble"}
    return study(
        data={"path": "/absent"},
        transfer={"stage1": table, "stage2": {**table, "labels": labels}},
        dataset={"path": "/absent"},
        text={"path": "/absent"},
    )


@pytest.mark.parametrize("place", PATHS)
def test_a_path_that_is_given_counts_from_where_the_command_is_given(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / PATHS[place]).write_text(yaml.safe_dump(RATES))
    after = overrides.in_study(about_everything(), {place: PATHS[place]})
    found: Any = after.as_mapping()
    for part in place.split("."):
        found = found[part]
    assert found == str(tmp_path / PATHS[place])


def test_a_path_inside_a_section_that_is_given_counts_from_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r18.pth").touch()
    after = overrides.in_study(about_everything(), {"data": {"path": "absent.csv", "weights": {"resnet18": "r18.pth"}}})
    assert after.data is not None and after.data.weights == {"resnet18": str(tmp_path / "r18.pth")}
    assert after.data.path == "absent.csv"  # what is nowhere is named as it was given


def test_a_trainable_that_is_given_is_found_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_here.py").write_text("def train(params, trial):\n    yield {'loss': 1.0}\n")
    before = from_mapping({"name": "s", "trainable": "other:train", "space": RATES}, "test")
    after = overrides.in_study(before, {"trainable": "mine_here:train"})
    assert after.trainable == f"{tmp_path / 'mine_here.py'}:train"


def test_what_is_not_given_stays_as_it_was_whatever_lies_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "installed.py").touch()
    before = from_mapping({"name": "s", "trainable": "installed:train", "space": RATES}, "test")
    assert overrides.in_study(before, {"search.seed": 3}).trainable == "installed:train"


def test_a_configuration_gets_the_value_and_what_is_derived_from_it() -> None:
    spec = study(space=DOTTED)
    space = Space.load(DOTTED)
    config = space.resolve({"optimizer.lr": 0.1, "training.batch_size": 32, "scheduler.gamma": 0.2, "width": 2})
    same, changed = overrides.in_configuration(spec, config, {"width": 5, "batch_size": 7})
    assert same == spec
    assert changed == config | {"width": 5, "training.batch_size": 7, "area": 25, "volume": 50}
    _, given_ = overrides.in_configuration(spec, config, {"area": 10})
    assert given_ == config | {"area": 10, "volume": 20}
    again, untouched = overrides.in_configuration(spec, config, {"evaluation.steps": 3})
    assert untouched == config and again.evaluation.steps == 3


def test_a_space_alone_is_pinned() -> None:
    space = overrides.in_space(Space.load("lora_v2_1"), {"network_dim": 128})
    assert "network_dim" not in space.parameters and space.fixed["network_dim"] == 128
    with pytest.raises(InputError, match="unknown"):
        overrides.in_space(Space.load("lora_v2_1"), {"budget.n_trials": 3})


def test_a_search_with_nothing_left_to_search_says_what_pins_it_and_what_to_do() -> None:
    pinned = overrides.in_study(study(fixed={"max_train_epochs": 4}), {"learning_rate": 0.1})
    for told in (lambda: build.plan(pinned), lambda: overrides.in_space(Space.load(RATES), pinned.fixed)):
        with pytest.raises(InputError) as caught:
            told()
        assert str(caught.value) == (
            "fixed: pins every parameter of the space (learning_rate, max_train_epochs), so that nothing is searched; "
            "must leave one out (fixed:, --set); one configuration is trained by `tune-lora train --config`"
        )
