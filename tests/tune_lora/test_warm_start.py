"""Earlier studies, made by the real searcher, carried into new ones: another space, another scale, another place."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from ray.tune.search import Searcher

from search_spaces.space import Space
from tune_lora import build, exports, spec, store, view, wording
from tune_lora.errors import InputErrors
from tune_lora.knowledge import Knowledge, gather
from tune_lora.report._past import past_trials
from tune_lora.searcher import StudySearcher
from tune_lora.store import StudyRecord

V2 = Space.load("lora_v2_1")
V1 = Space.load("lora_v1").with_fixed({"optimizer_type": "AdamW", "text_encoder_lr": 5e-5, "lr_scheduler": "cosine"})
"""Absolute alphas. Of the whole of lora_v1 so little lies within lora_v2_1 that hardly a result could be carried."""


def score(config: dict[str, Any]) -> float:
    ratio = config["network_alpha"] / config["network_dim"]
    return float(0.1 + 1e3 * abs(config["learning_rate"] - 9e-5) + 0.2 * abs(ratio - 0.6))


def search(
    folder: Path, space: Space, n: int, knowledge: Knowledge | None = None, *, first: int = 0, **settings: Any
) -> StudyRecord:
    """Runs a study with the real searcher, one trial at a time, to `n` trials."""
    folder.mkdir(parents=True, exist_ok=True)
    direction = settings.setdefault("direction", "minimize")
    study = store.open_study(store.sqlite_url(folder), folder.name, direction)
    searcher = StudySearcher(
        study,
        space,
        n_trials_total=n,
        trial_folder=lambda number: folder / "trials" / str(number),
        knowledge=knowledge or Knowledge(),
        **settings,
    )
    while (given := searcher.suggest(tune_id := f"{first}-{len(study.trials)}")) != Searcher.FINISHED:
        assert isinstance(given, dict)
        value = score(given["params"])
        result = {"budget": 12, "score": value if direction == "minimize" else -value, "final": True, "seconds": 1.0}
        searcher.on_trial_complete(tune_id, result)
    return store.read(study)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of lora_v1: absolute alphas."""
    folder = tmp_path_factory.mktemp("results") / "first"
    search(folder, V1, 40, sampler="random", seed=5)
    study = store.load_study(folder)
    study.set_user_attr(store.SPEC, study_of(folder.parent, space="lora_v1", name="first").as_mapping())
    return folder


def study_of(results: Path, **settings: Any) -> spec.StudySpec:
    mapping = {"name": "second", "trainer": "curve", "space": "lora_v2_1", "results": str(results)} | settings
    return spec.from_mapping(mapping, "study.yaml")


def warm(earlier: Path, **settings: Any) -> Knowledge:
    asked = {"study": str(earlier), **settings}
    return gather(study_of(earlier.parent, search={"warm_start": [asked]}), V2)


def mistakes_of(results: Path, **search: Any) -> tuple[str, ...]:
    with pytest.raises(InputErrors) as caught:
        gather(study_of(results, search=search), V2)
    assert all(line and "\n" not in line for line in caught.value.mistakes)
    return caught.value.mistakes


# The earlier study trained no configuration for more than 15 epochs, the new one tries 12, 16 and 20.
EPOCHS = {"max_train_epochs": "12 if max_train_epochs <= 12 else 16"}


def test_results_of_absolute_alphas_become_results_of_ratios(earlier: Path) -> None:
    (_, source) = warm(earlier, map=EPOCHS).sources
    trials = {f"carried:first#{trial.number}": trial for trial in store.load(earlier).trials}
    assert len(source.points) >= 3
    assert {point.provenance for point in source.points} | {one.provenance for one in source.left_out} == set(trials)
    for point in source.points:
        was = trials[point.provenance]
        assert point.value == was.value
        assert V2.within(point.params) == point.params
        assert V2.violations(V2.resolve(point.params)) == []
        ratio = was.config["network_alpha"] / was.config["network_dim"]
        assert point.params["network_alpha_ratio"] == pytest.approx(ratio, abs=0.026)
        assert "lr_warmup_steps 100 by default" in point.notes
    assert source.reasons["network_dim outside 64, 128, 256"] > 0
    assert sum(source.reasons.values()) == len(source.left_out)


def test_scores_are_told_as_they_are_only_where_they_mean_the_same(earlier: Path, tmp_path: Path) -> None:
    def scale(**settings: Any) -> str:
        asked = {"warm_start": [{"study": str(earlier)}]}
        return gather(study_of(tmp_path, search=asked, **settings), V2).sources[-1].values

    assert scale() == "as_is"
    assert scale(objective={"metric": "val_loss"}) == "ranks"
    assert scale(objective={"direction": "maximize"}) == "ranks"
    assert scale(base="other") == "ranks"
    assert scale(evaluation={"n_images": 4}) == "ranks"


def test_a_plain_optuna_study_in_a_storage_is_carried(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'plain.db'}"
    plain = optuna.create_study(storage=url, study_name="plain")
    plain.optimize(lambda trial: trial.suggest_float("learning_rate", 6e-5, 1.2e-4), n_trials=3)
    asked = {"warm_start": {"study": url, "name": "plain"}}
    source = gather(study_of(tmp_path, search=asked), V2).sources[-1]
    assert (source.label, len(source.points), source.values) == ("plain", 3, "ranks")


def test_the_best_earlier_trials_are_trained_first_and_never_twice(earlier: Path, tmp_path: Path) -> None:
    knowledge = warm(earlier, use="priors", top=6, map=EPOCHS)
    expected = [reference.provenance for reference in knowledge.references]
    assert expected
    assert all(V2.violations(V2.resolve(one.params)) == [] for one in knowledge.references)
    ranked = [f"carried:first#{trial.number}" for trial in store.load(earlier).ranked()[:6]]
    assert [provenance for provenance in ranked if provenance in expected] == expected
    for number, total in enumerate((1, len(expected) + 2, len(expected) + 4)):
        record = search(tmp_path / "second", V2, total, knowledge, first=number)
    provenances = [trial.provenance for trial in record.trials]
    assert provenances[: len(expected)] == expected
    assert set(provenances[len(expected) :]) == {"sampler"}
    assert record.trials[0].notes == knowledge.references[0].notes


def test_a_continued_study_goes_on_with_carried_results_as_one_that_was_not_stopped(
    earlier: Path, tmp_path: Path
) -> None:
    knowledge = warm(earlier, map=EPOCHS, values="ranks")
    straight = search(tmp_path / "straight", V2, 14, knowledge, n_startup_trials=3)
    search(tmp_path / "halved", V2, 7, knowledge, n_startup_trials=3)
    halved = search(tmp_path / "halved", V2, 14, knowledge, n_startup_trials=3, first=1)
    assert [trial.config for trial in halved.trials] == [trial.config for trial in straight.trials]


def test_validate_finds_mistakes_in_what_is_carried(earlier: Path, tmp_path: Path) -> None:
    search_settings = {"warm_start": [{"study": str(tmp_path / "nowhere")}], "start_with": [{"learning_rate": "fast"}]}
    with pytest.raises(InputErrors) as caught:
        build.plan(study_of(tmp_path, search=search_settings))
    assert len(caught.value.mistakes) == 2
    good = build.plan(study_of(tmp_path, search={"warm_start": [{"study": str(earlier), "map": EPOCHS}]}))
    assert good.knowledge.sources[-1].told


def test_carried_points_and_their_provenance_are_seen_everywhere(earlier: Path, tmp_path: Path) -> None:
    asked = [{"study": str(earlier), "use": use, "map": EPOCHS, "top": 20} for use in ("priors", "observations")]
    knowledge = gather(study_of(tmp_path, search={"warm_start": asked}), V2)
    record = search(tmp_path / "second", V2, 2, knowledge)
    table = exports.trial_table(record, record.trials)
    first = dict(zip(table.columns, table.rows[0], strict=True))
    assert first["provenance"] == knowledge.references[0].provenance
    assert "by default" in first["notes"]
    told = len(knowledge.sources[-1].told)
    line = next(line for line in wording.knowledge(record) if "past results told" in line)
    assert f"{told} past results told" in line
    assert "network_dim outside 64, 128, 256" in line
    assert line.startswith("first: ")
    assert any(f"{len(knowledge.references)} trained first" in line for line in wording.knowledge(record))
    shown = {past.name: past for past in past_trials(record)}
    assert {point.provenance for point in knowledge.sources[-1].points} <= set(shown)
    assert any("left out: network_dim outside" in past.note for past in shown.values())
    assert "space:trial_4" in shown
    assert view.panel(record, 2)


def test_ranks_of_a_study_to_be_maximised_are_turned(tmp_path: Path) -> None:
    search(tmp_path / "up", V2, 8, direction="maximize", sampler="random")
    asked = {"warm_start": [{"study": str(tmp_path / "up")}]}
    source = gather(study_of(tmp_path, search=asked), V2).sources[-1]
    assert (source.values, source.direction) == ("ranks", "maximize")


def test_two_studies_of_one_name_are_told_apart(earlier: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    asked = [{"study": str(folder), "use": "priors", "map": EPOCHS, "top": 20} for folder in (earlier, copy)]
    references = gather(study_of(tmp_path, search={"warm_start": asked}), V2).references
    provenances = [reference.provenance for reference in references]
    assert len(set(provenances)) == len(provenances)
    assert any(provenance.startswith("carried:first-2#") for provenance in provenances)


def test_a_sampler_that_learns_from_its_own_trials_only_is_told_nothing(earlier: Path, tmp_path: Path) -> None:
    asked = {"warm_start": [{"study": str(earlier), "map": EPOCHS}], "sampler": "random"}
    source = gather(study_of(tmp_path, search=asked), V2).sources[-1]
    assert source.points
    assert source.told == ()


# --- references and observations in the study file -------------------------------------------------------------------


def test_references_of_the_study_file_run_first_and_may_lie_outside_the_space(tmp_path: Path) -> None:
    mine = {"name": "mine", "learning_rate": 2e-4, "network_dim": 64, "lr_warmup_steps": 150, "note": "from the forum"}
    knowledge = gather(study_of(tmp_path, search={"start_with": [mine], "priors": ["trial_3_5"]}), V2)
    record = search(tmp_path / "second", V2, 3, knowledge)
    assert [trial.provenance for trial in record.trials] == ["prior:trial_3_5", "prior:mine", "sampler"]
    assert record.trials[1].config["learning_rate"] == 2e-4
    assert record.trials[1].notes == ("from the forum",)


def test_a_configuration_to_start_with_may_name_its_seed(tmp_path: Path) -> None:
    mine = {"learning_rate": 8e-5, "network_dim": 64}
    rows = [{"name": "one", **mine, "seed": 77}, {"name": "other", **mine, "seed": 78}, {"name": "free", **mine}]
    record = search(tmp_path / "third", V2, 3, gather(study_of(tmp_path, search={"start_with": rows}), V2))
    assert [trial.seed for trial in record.trials][:2] == [77, 78]
    assert record.trials[2].seed not in (77, 78)
    assert {trial.config["network_dim"] for trial in record.trials} == {64}
    (line,) = mistakes_of(tmp_path, start_with=[{**mine, "seed": -1}])
    assert line == "search.start_with.0: seed: got -1; must be a whole number from 0, or left out"


def test_observations_of_a_file_are_told_and_those_outside_are_counted(tmp_path: Path) -> None:
    (tmp_path / "past.csv").write_text(
        "learning_rate,network_dim,value\n8e-5,64,0.2\n3e-4,64,0.9\n9e-5,128,\n", "utf-8"
    )
    knowledge = gather(study_of(tmp_path, search={"observations": str(tmp_path / "past.csv")}), V2)
    source = knowledge.sources[-1]
    assert [(point.provenance, point.value) for point in source.told] == [("past.csv:past-1", 0.2)]
    assert [point.provenance for point in source.points] == ["past.csv:past-1", "past.csv:past-3"]
    assert source.reasons == {"learning_rate outside 6e-05 .. 0.00012 (log)": 1}


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_every_mistake_is_found_at_once(earlier: Path) -> None:
    found = mistakes_of(
        earlier.parent,
        priors=["trial_35"],
        start_with=[{"name": "trial_3_5", "learning_rte": 1e-4}],
        observations="past.csv",
        warm_start=[
            {"study": str(earlier.parent / "frist")},
            {"study": str(earlier), "map": {"alpha_ratio": "1", "network_dim": "network_dmi", "learning_rate": "1 +"}},
            {"study": f"sqlite:///{earlier / 'study.db'}", "name": "nobody"},
            {"study": f"sqlite:///{earlier / 'missing.db'}"},
        ],
    )
    for begins, says in (
        ("search.priors: unknown prior 'trial_35'", "did you mean 'trial_3_5'?"),
        ("search.start_with.0: unknown parameter 'learning_rte'", "did you mean 'learning_rate'?"),
        ("search.observations: file 'past.csv' does not exist", ""),
        ("search.warm_start.0.study: ", "frist: no study.db here"),
        ("search.warm_start.1.map.alpha_ratio: unknown parameter", "network_alpha_ratio"),
        ("search.warm_start.1.map.network_dim: unknown variable 'network_dmi'", "did you mean 'network_dim'?"),
        ("search.warm_start.1.map.learning_rate: '1 +' is not an expression", ""),
        ("search.warm_start.2.study: study 'nobody' not found", "available: first"),
        ("search.warm_start.3.study: ", "missing.db does not exist"),
    ):
        assert [line for line in found if line.startswith(begins) and says in line], (begins, found)
    assert len(found) == 9
    assert not (earlier / "missing.db").exists()


def test_a_study_is_carried_once(earlier: Path, tmp_path: Path) -> None:
    (line,) = mistakes_of(tmp_path, warm_start=[{"study": str(earlier)}, {"study": str(earlier)}])
    assert line.startswith("search.warm_start.1: ")
    assert "given twice as observations" in line


def test_a_study_cannot_start_from_itself(earlier: Path) -> None:
    asked = {"warm_start": [{"study": str(earlier)}]}
    with pytest.raises(InputErrors, match=r"search\.warm_start\.0\.study: .* is this study itself"):
        gather(study_of(earlier.parent, name="first", search=asked), V2)


def test_several_objectives_cannot_be_carried(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'two.db'}"
    optuna.create_study(storage=url, study_name="two", directions=["minimize", "maximize"])
    (line,) = mistakes_of(tmp_path, warm_start=[{"study": url}])
    assert line == "search.warm_start.0.study: study 'two' has 2 objectives; must have one"


def test_values_that_mean_the_opposite_are_not_told_as_they_are(earlier: Path) -> None:
    asked = {"warm_start": [{"study": str(earlier), "values": "as_is"}]}
    with pytest.raises(
        InputErrors, match=r"search\.warm_start\.0\.values: got as_is, but study 'first' is to minimize"
    ):
        gather(study_of(earlier.parent, search=asked, objective={"direction": "maximize"}), V2)


@pytest.mark.parametrize(
    ("search_settings", "line"),
    [
        ({"priors": "all"}, "study.yaml: search.priors: got 'all'; must be true, false, or a list of names"),
        ({"start_with": 3}, "study.yaml: search.start_with: got 3; must be the path of a CSV, YAML or JSON file"),
        ({"warm_start": [{}]}, "study.yaml: search.warm_start.0.study: is missing; must be given"),
        ({"warm_start": [{"study": "a", "tpo": 1}]}, "study.yaml: search.warm_start.0.tpo: unknown key 'tpo'; did you"),
        ({"warm_start": [{"study": "a", "use": "prior"}]}, "study.yaml: search.warm_start.0.use: got 'prior'; must be"),
        ({"warm_start": [{"study": "a", "map": 1}]}, "study.yaml: search.warm_start.0.map: got 1; must be a mapping"),
    ],
)
def test_settings_of_the_study_file_are_checked(tmp_path: Path, search_settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputErrors) as caught:
        study_of(tmp_path, search=search_settings)
    (found,) = caught.value.mistakes
    assert found.startswith(line)


def test_paths_count_from_the_study_file(earlier: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("learning_rate\n1e-4\n", "utf-8")
    text = (
        "name: second\ntrainer: curve\nspace: lora_v2_1\n"
        f"search: {{start_with: mine.csv, warm_start: [{{study: {earlier.name}}}]}}\n"
    )
    (tmp_path / earlier.name).symlink_to(earlier)
    (tmp_path / "study.yaml").write_text(text, "utf-8")
    found = spec.load(tmp_path / "study.yaml")
    assert found.search.start_with == str((tmp_path / "mine.csv").resolve())
    assert found.search.warm_start[0].study == str(earlier.resolve())
    assert spec.from_mapping(found.as_mapping(), "again") == found


@pytest.mark.parametrize("page", ["docs/knowledge.md"])
def test_what_the_pages_show_is_a_study(page: str, repository: Path) -> None:
    blocks = re.findall(r"```yaml\n(search:.*?)```", (repository / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        shown = spec.from_mapping(
            {"name": "x", "trainer": "curve", "space": "lora_v2_1", **yaml.safe_load(block)}, page
        )
        assert shown.search.warm_start
