"""The study that comes next: ranges move as the evidence says, what is carried over is carried over, and it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.domains import Int, LogUniform, Number, Uniform
from search_spaces.space import Space
from tests.tune_lora.test_analysis import SPACE, drawn, study, trial
from tune_lora import build, exports, next_study, same_study, spec, store
from tune_lora.analysis import Evidence
from tune_lora.cli import main
from tune_lora.errors import InputError
from tune_lora.knowledge import Knowledge
from tune_lora.next_study import _ranges as ranges
from tune_lora.next_study._changes import Change, changes
from tune_lora.searcher import StudySearcher

Score = Callable[[Mapping[str, Any]], float]

N = 30
"""Trials of a study in these tests."""
CURVE: dict[str, Any] = {
    "name": "rates",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-3, "high": 1e-1, "default": 1e-2},
        "network_dim": {"type": "categorical", "choices": [16, 32, 64]},
        "max_train_epochs": {"type": "categorical", "choices": [2, 3]},
    },
}
ABSOLUTE: dict[str, Any] = {
    "name": "absolute",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
        "network_dim": {"type": "categorical", "choices": [64, 128]},
        "network_alpha": {"type": "categorical", "choices": [32, 48, 64]},
    },
}
AS_RATIO: dict[str, Any] = {
    "name": "as-ratio",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-4, "high": 5e-3},
        "network_dim": {"type": "categorical", "choices": [64, 128]},
        "network_alpha_ratio": {"type": "uniform", "low": 0.25, "high": 0.75, "step": 0.05},
    },
    "derived": {"network_alpha": "int(network_dim * network_alpha_ratio)"},
}


def finished(folder: Path, space: Mapping[str, Any], score: Score, n: int = N, **settings: Any) -> Path:
    """The results folder of a study that the real searcher ran, one trial at a time, without Ray."""
    asked = spec.from_mapping(
        {
            "name": "first",
            "trainer": "curve",
            "space": dict(space),
            "search": {"sampler": "tpe"},
            "budget": {"n_trials": n, "plateau": None},
            "tracking": {"wandb": "off"},
            "results": str(folder / "results"),
            **settings,
        },
        "test",
    )
    ready = build.plan(asked)
    asked.folder.mkdir(parents=True)
    opened = store.open_study(asked.storage_url, asked.name, "minimize")
    same_study.settle(opened, ready)
    searcher = StudySearcher(
        opened,
        ready.space,
        direction="minimize",
        n_trials_total=n,
        sampler="random",
        trial_folder=lambda number: asked.folder / "trials" / str(number),
        knowledge=Knowledge(),
    )
    for number in range(n):
        suggested = searcher.suggest(str(number))
        assert isinstance(suggested, dict)
        value = score(suggested["params"])
        report = {"budget": 1, "metrics": {"score": value}, "score": value, "final": True, "seconds": 1.0}
        searcher.on_trial_complete(str(number), report)
    exports.write_study_file(asked.as_mapping(), asked.folder)
    return asked.folder


def decades(params: Mapping[str, Any], best: float) -> float:
    return abs(float(np.log10(params["learning_rate"] / best)))


def moved(score: Score, n: int = 60) -> dict[str, Change]:
    record = study([trial(number, params, score(params)) for number, params in enumerate(drawn(n))])
    found = changes(Evidence(record), Space.load(SPACE))
    return {one.name: one for one in found if isinstance(one, Change)}


# --- what is changed -------------------------------------------------------------------------------------------------


def test_an_edge_that_is_hit_is_widened() -> None:
    made = moved(lambda p: float(np.log10(p["learning_rate"])))
    assert set(made) == {"learning_rate"}
    assert made["learning_rate"].what == "widened"
    assert made["learning_rate"].settings["low"] == pytest.approx(1e-7)
    assert made["learning_rate"].settings["high"] == 1e-1


def test_a_range_is_narrowed_around_the_best() -> None:
    made = moved(lambda p: decades(p, 1e-3))
    assert set(made) == {"learning_rate"}
    low, high = (made["learning_rate"].settings[end] for end in ("low", "high"))
    assert made["learning_rate"].what == "narrowed"
    assert 1e-5 < low < 1e-3 < high < 1e-1


def test_a_range_whose_best_lie_beside_an_end_is_moved_a_little_beyond_it() -> None:
    """No more than half of them lie at the very end, so it is not widened as such; cutting it there would be wrong."""
    made = moved(lambda p: decades(p, 3e-5))["learning_rate"]
    assert made.what == "moved"
    assert made.settings["low"] < 1e-5
    assert 3e-5 < made.settings["high"] < 1e-2


def test_a_range_that_cannot_go_further_stays() -> None:
    record = study([trial(n, p, p["dropout"]) for n, p in enumerate(drawn(60))])
    (kept,) = changes(Evidence(record), Space.load(SPACE))
    assert isinstance(kept, next_study.Kept)
    assert "dropout: left as it is" in str(kept)
    assert "cannot go further" in str(kept)


def test_choices_between_and_beyond() -> None:
    between = moved(lambda p: abs(p["rank"] - 64) / 100 + 0.01 * p["dropout"])["rank"]
    assert {48, 64, 96} <= set(between.settings["choices"])
    beyond = moved(lambda p: -p["rank"] / 100 + 0.01 * p["dropout"])["rank"]
    assert {96, 128, 256} <= set(beyond.settings["choices"])


def test_a_choice_that_is_worse_is_dropped() -> None:
    made = moved(lambda p: float(p["rank"] == 32) + 0.01 * p["dropout"])["rank"]
    assert 32 not in made.settings["choices"]
    assert {64, 128} <= set(made.settings["choices"])


def test_nothing_moves_without_evidence() -> None:
    rng = np.random.default_rng(5)
    assert not moved(lambda _: float(rng.normal()))
    assert not moved(lambda p: decades(p, 1e-3), n=12), "twelve trials are too few"


@given(
    low=st.floats(1e-6, 10),
    factor=st.floats(1.5, 1e4),
    kind=st.sampled_from([LogUniform, Uniform]),
    end=st.sampled_from(["low", "high"]),
)
def test_a_wider_range_holds_the_old_one(low: float, factor: float, kind: type[Number], end: ranges.End) -> None:
    domain = kind(low, low * factor)
    new = ranges.wider(domain, end)
    if new is None:
        assert isinstance(domain, Uniform)
        return
    wide = {"low": domain.low, "high": domain.high} | new
    assert wide["low"] <= domain.low < domain.high <= wide["high"]
    assert wide["low"] >= 0
    assert wide != {"low": domain.low, "high": domain.high}


@given(places=st.lists(st.floats(0, 1), min_size=5, max_size=10), steps=st.integers(4, 40))
def test_a_narrower_range_holds_the_best_and_stays_on_its_steps(places: list[float], steps: int) -> None:
    for domain in (Int(1, 1 + steps), Uniform(0.25, round(0.25 + 0.05 * steps, 2), 0.05), LogUniform(1e-5, 1e-2)):
        values = [domain.at(place) for place in places]
        settings = {"low": domain.low, "high": domain.high} | ranges.narrower(domain, values)
        assert domain.low <= settings["low"] <= min(values)
        assert max(values) <= settings["high"] <= domain.high
        assert domain.step is None or (domain.contains(settings["low"]) and domain.contains(settings["high"]))


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose best learning rates lie at the low end."""
    folder = tmp_path_factory.mktemp("first")
    return finished(folder, CURVE, lambda p: decades(p, 1e-5) + 0.001 * p["network_dim"] / 64, 60)


def test_the_file_is_a_study_with_its_provenance(first: Path, tmp_path: Path) -> None:
    made = next_study.write(first, tmp_path / "second.yaml")
    text, found = made.path.read_text(), spec.load(made.path)
    ready = build.plan(found)
    heading = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert "The study after first" in heading
    assert "learning_rate: widened from 0.001 .. 0.1 to 0.0001 .. 0.1" in heading
    assert ready.space.parameters["learning_rate"].domain == LogUniform(1e-4, 1e-1)
    assert found.name == "second"
    assert found.search.seed == 43
    best = store.load(first).ranked()[:3]
    assert [reference.provenance for reference in ready.knowledge.references] == [
        f"prior:first-{one.number}" for one in best
    ]
    assert [dict(reference.params) for reference in ready.knowledge.references] == [dict(one.params) for one in best]
    (source,) = ready.knowledge.sources
    assert (source.label, len(source.told), source.values) == ("first", 60, "as_is")
    assert made.carried.told == 60


def test_what_was_narrowed_away_is_said_by_number(tmp_path: Path) -> None:
    wide = {**CURVE, "parameters": {**CURVE["parameters"], "learning_rate": SPACE["parameters"]["learning_rate"]}}
    folder = finished(tmp_path, wide, lambda p: decades(p, 1e-3))
    made = next_study.write(folder, tmp_path / "second.yaml")
    domain = build.space_of(made.spec).parameters["learning_rate"].domain
    gone = [one.number for one in store.load(folder).ranked() if not domain.contains(one.params["learning_rate"])]
    told = [line for line in made.carried.left_out if "learning_rate outside" in line]
    assert gone
    assert sorted(int(number) for number in told[0].rpartition("trial")[2].lstrip("s ").split(", ")) == sorted(gone)
    assert made.carried.told == N - len(gone)


def test_an_alpha_becomes_a_ratio(tmp_path: Path) -> None:
    folder = finished(tmp_path, ABSOLUTE, lambda p: decades(p, 1e-3) + p["network_alpha"] / 100)
    (tmp_path / "ratio.yaml").write_text(yaml.safe_dump(AS_RATIO))
    made = next_study.write(folder, tmp_path / "second.yaml", space=str(tmp_path / "ratio.yaml"))
    assert made.spec.search.warm_start[0].map == {"network_alpha_ratio": "network_alpha / network_dim"}
    ready = build.plan(spec.load(made.path))
    by_number = {one.number: one for one in store.load(folder).trials}
    (source,) = ready.knowledge.sources
    assert source.told
    for point in source.told:
        past = by_number[int(point.provenance.rpartition("#")[2])]
        ratio = past.params["network_alpha"] / past.params["network_dim"]
        assert point.params["network_alpha_ratio"] == pytest.approx(ratio, abs=0.026), "to a step of 0.05"
    outside = [n for n, one in by_number.items() if one.params["network_alpha"] == one.params["network_dim"]]
    outside += [n for n, one in by_number.items() if one.params["learning_rate"] > 5e-3]
    assert len(source.told) == N - len(set(outside))
    numbers = {
        int(word) for line in made.carried.left_out for word in line.rpartition("trial")[2].strip("s ").split(", ")
    }
    assert numbers == set(outside)


def test_a_sampler_that_learns_from_nothing_is_said_to_be_one(tmp_path: Path) -> None:
    folder = finished(tmp_path, CURVE, lambda p: decades(p, 1e-2), search={"sampler": "random"})
    made = next_study.write(folder, tmp_path / "second.yaml")
    shown = made.carried.shown
    assert (made.carried.told, shown > 0) == (0, True)
    assert f"- {shown} results only shown: the sampler random learns from none; tpe, gp and auto do" in made.told()


def test_the_verified_trial_comes_first(tmp_path: Path) -> None:
    folder = finished(tmp_path, CURVE, lambda p: decades(p, 1e-2))
    second = store.load(folder).ranked()[1].number
    store.load_study(folder).set_user_attr(store.VERIFICATION, {"trial": second})
    made = next_study.write(folder, tmp_path / "second.yaml")
    assert made.first.entries[0]["name"] == f"first-{second}"
    assert made.first.entries[0]["note"].endswith(", verified")
    assert f"best trial {second}" in made.origin


def test_a_change_that_the_trainer_refuses_is_left_out(tmp_path: Path) -> None:
    """The curve wants whole epochs; half of one lies between, and is not offered. Ranks go on as they may."""
    space = {**CURVE, "parameters": {**CURVE["parameters"], "max_train_epochs": {"type": "int", "low": 1, "high": 9}}}
    folder = finished(tmp_path, space, lambda p: float(p["max_train_epochs"]))
    made = next_study.write(folder, tmp_path / "second.yaml")
    assert "max_train_epochs: left as it is" in " ".join(made.told())
    assert build.space_of(made.spec).parameters["max_train_epochs"].domain == Int(1, 9)


def test_a_chain_of_studies_keeps_what_it_was_told(first: Path, tmp_path: Path) -> None:
    second = next_study.write(first, tmp_path / "second.yaml")
    folder = finished(
        tmp_path,
        CURVE,
        lambda p: decades(p, 1e-4),
        name="other",
        search={
            "sampler": "tpe",
            "warm_start": [{"study": str(first)}],
        },
    )
    third = next_study.write(folder, tmp_path / "third.yaml")
    assert len(second.spec.search.warm_start) == 1
    assert [Path(one.study).name for one in third.spec.search.warm_start] == ["other", "first"]
    build.plan(spec.load(third.path))


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_a_file_that_exists_is_kept(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine\n")
    with pytest.raises(SystemExit) as end:
        main(["next", str(first), "--out", str(path)])
    assert end.value.code == 2
    assert "exists and is kept; name another file with --out, or replace it with --force" in capsys.readouterr().err
    assert path.read_text() == "mine\n"
    with pytest.raises(SystemExit) as end:
        main(["next", str(first), "--out", str(path), "--force", "--n-trials", "7"])
    assert not end.value.code
    assert spec.load(path).budget.n_trials == 7
    assert "next: tune-lora validate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "words"),
    [("a.txt", "must end in .yaml"), ("nowhere/a.yaml", "must be a folder to write a.yaml into")],
)
def test_a_place_that_is_none(first: Path, tmp_path: Path, out: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        next_study.write(first, tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_a_space_that_is_none(first: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown space 'lora_v9'"):
        next_study.write(first, tmp_path / "a.yaml", space="lora_v9")
    assert not list(tmp_path.iterdir())


def test_a_study_without_a_completed_trial_leads_nowhere(tmp_path: Path) -> None:
    asked = spec.from_mapping(
        {"name": "none", "trainer": "curve", "space": CURVE, "results": str(tmp_path / "results")}, "test"
    )
    asked.folder.mkdir(parents=True)
    same_study.settle(store.open_study(asked.storage_url, "none", "minimize"), build.plan(asked))
    with pytest.raises(InputError, match="no trial completed, so nothing leads on"):
        next_study.write(asked.folder, tmp_path / "a.yaml")


def test_names_are_free(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert next_study.write(first).path == Path("first-2.yaml")
    (first.parent / "first-2").mkdir()
    try:
        assert next_study.write(first).path == Path("first-3.yaml")
    finally:
        (first.parent / "first-2").rmdir()


# --- it runs ---------------------------------------------------------------------------------------------------------


def test_the_next_study_runs(first: Path, tmp_path: Path, ray_session: None) -> None:  # a session
    """A real study from the file: the best are trained again, first, and the results are told to the sampler."""
    from tune_lora import study as studies

    made = next_study.write(first, tmp_path / "second.yaml", n_trials=6)
    record = studies.run(spec.load(made.path))
    assert record.count("complete") + record.count("pruned") == 6
    again = [entry["name"] for entry in made.first.entries]
    assert [one.provenance for one in record.trials[:3]] == [f"prior:{name}" for name in again]
    assert record.knowledge[0]["told"] == 60
    assert len(record.carried) == 60
    assert build.space_of(made.spec).parameters["learning_rate"].domain == LogUniform(1e-4, 1e-1)
