"""A study of phases on real Ray: each starts from the best of the one before; gains are measured with fresh seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_lora import build, cli, phases, phases_check, sources, spec, store
from tune_lora.errors import InputError, InputErrors

SPACE = {
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1, "default": 1e-5},
        "network_dim": {"type": "categorical", "choices": [2, 4, 16], "default": 2},
        "max_train_epochs": {"type": "categorical", "choices": [2, 6], "default": 2},
    }
}
PHASES = [
    {
        "name": "rate",
        "parameters": ["learning_rate", "max_train_epochs"],
        "n_trials": 8,
        "claims": [{"change": {"max_train_epochs": 6}, "low": 0.0, "high": 10}],
    },
    {"name": "width", "parameters": ["network_dim"], "n_trials": 3},
]


def study_in(folder: Path, **changes: Any) -> spec.StudySpec:
    document: dict[str, Any] = {
        "name": "steps",
        "trainer": "curve",
        "curve": {"noise": 0.001},
        "space": SPACE,
        "search": {"seed": 3, "n_startup_trials": 4},
        "phases": PHASES,
        "ablation": {"seeds": 2},
        "results": str(folder),
        "tracking": {"wandb": "off"},
    }
    return spec.from_mapping(document | changes, "study.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_session) -> tuple[spec.StudySpec, Any]:
    study = study_in(tmp_path_factory.mktemp("phases"))
    return study, phases.run(study)


def test_each_phase_starts_where_the_one_before_ended(finished) -> None:
    study, record = finished
    first, second = record.phases
    assert dict(first.start) == {"learning_rate": 1e-5, "network_dim": 2, "max_train_epochs": 2}
    assert second.start == first.end
    trials = store.load(study.folder / "steps-2-width").trials
    assert {trial.config["learning_rate"] for trial in trials} == {first.end["learning_rate"]}
    assert trials[0].provenance == "prior:start"
    assert trials[0].config["network_dim"] == 2


def test_gains_are_measured_with_seeds_that_the_search_did_not_see(finished) -> None:
    study, record = finished
    searched = store.load(study.folder / "steps-1-rate").trials
    seeds = [{trial.seed for trial in searched}]
    for part in ("steps-1-rate-ablation", "steps-2-width-ablation", "steps-end"):
        again = store.load(study.folder / part).trials
        assert all(trial.state == "complete" for trial in again)
        seeds.append({trial.seed for trial in again})
    assert len(set().union(*seeds)) == sum(map(len, seeds))  # no two parts share a seed
    assert [len(one) for one in seeds[1:]] == [2, 2, 2]
    first = record.phases[0]
    assert first.start_values.keys() == first.best_values.keys() == first.end_values.keys() == seeds[1]
    by_hand = [first.start_values[seed] - first.best_values[seed] for seed in seeds[1]]  # lower is better here
    assert first.whole.mean == pytest.approx(sum(by_hand) / 2)
    assert first.whole.mean > 0.5  # the start is two decades from the best rate


def test_every_single_change_and_every_claim_is_measured_alone(finished) -> None:
    study, record = finished
    first = record.phases[0]
    changed = {name for gain in first.singles for name in gain.change}
    assert changed >= {"learning_rate", "max_train_epochs"}
    (claimed,) = (gain for gain in first.singles if gain.claimed)
    assert claimed.change == {"max_train_epochs": 6}
    assert claimed.measured.mean == pytest.approx(2.718281828 ** (-2 / 3) - 2.718281828**-2, abs=0.01)
    configs = [trial.config for trial in store.load(study.folder / "steps-1-rate-ablation").trials]
    alone = {**first.start, "max_train_epochs": 6}
    assert sum(all(config[name] == value for name, value in alone.items()) for config in configs) == 2


def test_it_leaves_a_report_a_configuration_and_numbers(finished) -> None:
    study, record = finished
    report = (study.folder / "report.html").read_text()
    assert "2 of 2 phases" in report
    assert "max_train_epochs 2 → 6" in report
    assert "the promise is not refuted" in report
    assert (study.folder / "figures" / "gains.png").stat().st_size > 10_000
    assert yaml.safe_load((study.folder / "best_config.yaml").read_text()) == dict(record.end)
    kept = json.loads((study.folder / "phases.json").read_text())
    assert [phase["name"] for phase in kept["phases"]] == ["rate", "width"]
    assert record.values["start"].keys() == record.values["end"].keys() != record.phases[1].end_values.keys()
    assert "where it ends: " in report


def test_the_same_command_again_trains_nothing_twice(finished) -> None:
    study, record = finished
    before = {path.parent.name: len(store.load(path.parent).trials) for path in study.folder.glob("*/study.db")}
    assert len(before) == 5
    again = phases.run(study)
    assert {path.parent.name: len(store.load(path.parent).trials) for path in study.folder.glob("*/study.db")} == before
    assert again == record


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"phases": [{"name": "rate", "parameters": ["learning_rte"]}]},
            "phases.0.parameters: unknown parameter 'learning_rte'; did you mean 'learning_rate'?",
        ),
        ({"phases": [PHASES[1], PHASES[1]]}, "phases: 'width' is given twice; must be different names"),
        (
            {"phases": [{**PHASES[1], "claims": [{"change": {"learning_rate": 1}, "low": 0, "high": 1}]}]},
            "phases.0.claims: 'learning_rate' is not searched in this phase",
        ),
        (
            {"space": {"parameters": {"learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}}}},
            "space: learning_rate has no default; must have one, since the first phase starts from it",
        ),
    ],
)
def test_mistakes_are_found_before_anything_starts(tmp_path, changes, says) -> None:
    study = study_in(tmp_path, **({"phases": [{"name": "a", "parameters": ["learning_rate"]}]} | changes))
    with pytest.raises(InputErrors) as caught:
        phases.run(study)
    assert any(line.startswith(says) for line in caught.value.mistakes), caught.value.mistakes
    assert not study.folder.exists()


def test_phases_have_no_total(tmp_path) -> None:
    with pytest.raises(InputError, match=r"--n-trials: got \+5, but each phase has its own n_trials"):
        phases.refuse_totals("+5")


def test_the_manual_shows_a_study_that_is_one() -> None:
    text = (Path(build.__file__).parents[1] / "docs" / "phases.md").read_text("utf-8")
    document = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    study = spec.from_mapping(document, "phases.md")
    phases_check.check(study, build.space_of(study))
    assert [phase.name for phase in study.phases] == ["training", "capacity"]


def test_validate_says_how_much_is_searched(finished, capsys) -> None:
    study, _ = finished
    assert run_main(["validate", str(study.folder / "study.yaml")]) == 0
    assert "valid; 11 trials in 2 phases of" in capsys.readouterr().out


def test_what_reads_one_study_names_the_parts(finished) -> None:
    study, _ = finished
    with pytest.raises(InputError, match=r"holds a study of phases; must be one of its parts: steps-1-rate, steps-1-"):
        sources.record_of(study.folder)
    assert sources.record_of(study.folder / "steps-2-width").best is not None


def test_the_command_line_runs_it_and_says_what_was_gained(finished, capsys) -> None:
    study, _ = finished
    file = study.folder.parent / "again.yaml"
    file.write_text(yaml.safe_dump(study.as_mapping()))
    main_ended = run_main(["run", str(file)])
    said = capsys.readouterr().out
    assert main_ended == 0
    assert "best when measured again: +" in said
    assert "from start to end: +" in said
    assert run_main(["run", str(file), "--n-trials", "9"]) == 2


def run_main(arguments: list[str]) -> int:
    try:
        cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_time_that_is_over_ends_it_between_parts_and_the_report_says_so(tmp_path, ray_session) -> None:
    study = study_in(tmp_path, budget={"timeout_hours": 1e-9})
    record = phases.run(study)
    assert record.stop_reason.startswith("timeout")
    assert record.phases == ()
    assert "timeout" in (study.folder / "report.html").read_text()


def test_a_phase_is_checked_with_the_study(tmp_path) -> None:
    assert build.plan(study_in(tmp_path)).space.parameters.keys() == SPACE["parameters"].keys()
