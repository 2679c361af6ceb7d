"""Studies with several objectives: what a study file may say, what is stored, learned, shown, and when it ends."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from rich.console import Console

from search_spaces.feasible import SAMPLERS, feasible_sampler
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import build, exports, figures, report, store, view
from tune_lora import spec as specs
from tune_lora import study as studies
from tune_lora.errors import InputErrors
from tune_lora.knowledge import Knowledge
from tune_lora.memory import Memory
from tune_lora.records import Objective, StudyRecord, TrialRecord, pareto
from tune_lora.searcher import StudySearcher
from tune_lora.stopping import reason_to_stop

SPACE: dict[str, Any] = {
    "name": "ranks",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "network_dim": {"type": "categorical", "choices": [4, 16, 64]},
        "max_train_epochs": {"type": "categorical", "choices": [4, 6]},
    },
}
BOTH = (Objective("val_loss"), Objective("cost"))


def spec(folder: Path, **changes: Any) -> specs.StudySpec:
    """A study of curves that trades their loss for their cost."""
    document = {
        "name": "trade",
        "trainer": "curve",
        "space": SPACE,
        "objective": {"metrics": ["val_loss", {"name": "cost", "direction": "minimize"}]},
        "search": {"n_startup_trials": 4, "seed": 7},
        "scheduler": {"grace": 2, "eta": 2},
        "budget": {"n_trials": 12, "plateau": None},
        "resources": {"cpu": 1, "concurrent": 2},
        "tracking": {"wandb": "off"},
        "results": str(folder),
    }
    return specs.from_mapping(document | changes, "study.yaml")


# --- what a study file may say ---------------------------------------------------------------------------------------


def test_a_study_file_reads_back_to_the_same_and_one_objective_is_as_before() -> None:
    several = spec(Path("results"))
    assert specs.from_mapping(several.as_mapping(), "again") == several
    assert several.objective.several == BOTH and several.objective.pruned_on == BOTH[0]
    one = spec(Path("results"), objective={"metric": "val_loss", "direction": "minimize"})
    assert one.objective.several == () and one.objective.pruned_on == Objective("val_loss")
    assert set(one.as_mapping()["objective"]) == {"metric", "direction", "weights"}


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"metrics": ["val_loss"]}, "objective.metrics: got 1; must be two or more"),
        ({"metrics": ["val_loss", "val_loss"]}, "objective.metrics: got 'val_loss' twice; must be different"),
        ({"metrics": "val_loss"}, "objective.metrics: got 'val_loss'; must be a list"),
        ({"metrics": ["val_loss", "cost"], "metric": "cost"}, "objective: got metrics and metric; must be one of"),
        (
            {"metrics": ["val_loss", "cost"], "prune_on": "val_los"},
            "got 'val_los'; must be a metric that trials report",
        ),
        ({"metrics": ["val_loss", "train_seconds"], "prune_on": "train_seconds"}, "(available: val_loss)"),
        ({"metrics": ["train_seconds", "train_seconds_per_epoch"]}, "must have one that trials report"),
        ({"prune_on": "cost"}, "got prune_on without metrics"),
        ({"metrics": ["val_loss", {"name": "cost", "way": "up"}]}, "unknown key 'way'; (available: direction, name)"),
        ({"metrics": ["val_loss", {"name": "cost", "direction": "up"}]}, "got 'up'; must be 'minimize' or 'maximize'"),
        ({"metrics": ["val_loss", "costs"]}, "objective.metrics.1: got 'costs'; did you mean 'cost'?"),
    ],
)
def test_each_mistake_is_one_line(objective: dict[str, Any], said: str) -> None:
    with pytest.raises(InputErrors) as caught:
        build.plan(spec(Path("results"), objective=objective))
    (line,) = caught.value.mistakes
    assert said in line and "\n" not in line


def test_what_knows_one_score_only_is_refused_and_all_of_it_in_one_go() -> None:
    search = {"sampler": "cmaes", "observations": [{"learning_rate": 1e-3, "value": 0.2}]}
    with pytest.raises(InputErrors) as caught:
        build.plan(spec(Path("results"), search=search, budget={"target": 0.1}))
    sampler, target, observations = caught.value.mistakes
    assert "search.sampler: got cmaes, but the study has 2 objectives; must be one of auto, tpe, nsgaii" in sampler
    assert target.startswith("budget.target: got 0.1") and observations.startswith("search.observations")


def test_the_clock_is_measured_for_every_trainer() -> None:
    objective = {"metrics": ["train_seconds_per_epoch", "val_loss"]}
    assert build.plan(spec(Path("results"), objective=objective)).spec.objective.pruned_on.name == "val_loss"


# --- what is stored and learned --------------------------------------------------------------------------------------


class Study:
    """A stored study with two objectives, and searchers on it as drivers come and go."""

    def __init__(self, folder: Path, space: Space, several: tuple[Objective, ...] = BOTH) -> None:
        self.folder, self.space, self.several = folder, space, several
        self.study = store.open_study(store.sqlite_url(folder), "study", "minimize", objectives=several)

    def searcher(self, **settings: Any) -> StudySearcher:
        given: dict[str, Any] = {"n_trials_total": 12, "seed": 3, "knowledge": Knowledge(), "n_startup_trials": 4}
        return StudySearcher(
            self.study,
            self.space,
            direction="minimize",
            objectives=self.several,
            trial_folder=lambda number: self.folder / "trials" / str(number),
            **(given | settings),
        )

    @property
    def record(self) -> StudyRecord:
        return store.read(optuna.load_study(study_name="study", storage=store.sqlite_url(self.folder)))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, Space.load(SPACE))


def end(searcher: StudySearcher, tune_id: str, params: dict[str, Any], seconds: float = 6.0) -> None:
    """Two reports of a trial whose loss and cost depend on its rank."""
    rank = params["network_dim"]
    for budget in (1, 2):
        result = {
            "budget": budget,
            "score": 4 / rank + params["learning_rate"] / budget,
            "metrics/val_loss": 4 / rank + params["learning_rate"] / budget,
            "metrics/cost": float(rank * budget),
            "seconds": seconds * budget / 2,
            "final": budget == 2,
        }
        if budget == 1:
            searcher.on_trial_result(tune_id, result)
        else:
            searcher.on_trial_complete(tune_id, result)


def run(searcher: StudySearcher, prefix: str = "t") -> int:
    """Runs trials one at a time until the searcher is done; how many."""
    count = 0
    while isinstance(given := searcher.suggest(f"{prefix}{count}"), dict):
        end(searcher, f"{prefix}{count}", given["params"])
        count += 1
    return count


def test_the_stored_study_is_one_that_optuna_knows_to_have_several_objectives(study: Study) -> None:
    run(study.searcher())
    theirs = optuna.load_study(study_name="study", storage=store.sqlite_url(study.folder))
    assert theirs.metric_names == ["val_loss", "cost"] and len(theirs.directions) == 2
    record = study.record
    assert {trial.number for trial in theirs.best_trials} == {trial.number for trial in pareto(record)}
    for trial, mine in zip(theirs.trials, record.trials, strict=True):
        assert tuple(trial.values) == mine.values == (mine.metrics["val_loss"], mine.metrics["cost"])
        assert trial.intermediate_values == {}  # Optuna allows none; ours are kept apart
        assert list(mine.curve) == [1, 2] and mine.curve[2] == mine.values[0] and mine.value is None
    # Whoever goes on with plain Optuna can.
    theirs.sampler = optuna.samplers.TPESampler(n_startup_trials=2, seed=0)
    assert theirs.ask(theirs.trials[0].distributions).params


def test_the_clock_counts_all_restarts_of_a_trial(tmp_path: Path) -> None:
    several = (Objective("val_loss"), Objective("train_seconds"), Objective("train_seconds_per_epoch"))
    study = Study(tmp_path, Space.load(SPACE), several)
    searcher = study.searcher(n_trials_total=1)
    given = searcher.suggest("a")
    assert isinstance(given, dict)
    searcher.on_trial_result("a", {"budget": 1, "score": 0.5, "metrics/val_loss": 0.5, "seconds": 10.0})
    end(searcher, "a", given["params"], seconds=6.0)  # from its checkpoint: the worker's clock began anew
    (trial,) = study.record.trials
    assert trial.values[1:] == (16.0, 8.0)
    assert trial.metrics["train_seconds"] == 16.0


def test_a_last_report_without_an_objective_is_a_crash_that_names_it(study: Study) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"budget": 2, "score": 0.1, "metrics/val_loss": 0.1, "final": True})
    searcher.suggest("b")
    last = {"budget": 2, "score": 0.1, "metrics/val_loss": 0.1, "metrics/cost": float("inf"), "final": True}
    searcher.on_trial_complete("b", last)
    first, second = study.record.trials
    assert (first.cause, first.values) == (Cause.CRASH, ()) and "cost" in first.message
    assert (second.cause, second.values) == (Cause.NAN_LOSS, ()) and "cost is inf" in second.message


def test_a_trial_that_is_pruned_has_its_curve_and_no_values(study: Study) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    searcher.on_trial_result("a", {"budget": 1, "score": 0.9, "metrics/val_loss": 0.9, "metrics/cost": 1.0})
    searcher.on_trial_complete("a", {"budget": 2, "score": 0.8, "metrics/val_loss": 0.8, "metrics/cost": 2.0})
    (trial,) = study.record.trials
    assert (trial.state, trial.values, trial.curve) == ("pruned", (), {1: 0.9, 2: 0.8})
    assert pareto(study.record) == [] and study.record.best is None


@pytest.mark.parametrize("sampler", [name for name in build.MANY if name in SAMPLERS])
def test_every_sampler_that_is_offered_searches_goes_on_and_meets_failures(study: Study, sampler: str) -> None:
    searcher = study.searcher(sampler=sampler, n_trials_total=7)
    searcher.suggest("failed")
    searcher.on_trial_complete("failed", {"budget": 1, "cause": "nan_loss", "message": "nan", "final": False})
    searcher.suggest("pruned")
    searcher.on_trial_complete("pruned", {"budget": 1, "score": 0.8, "metrics/val_loss": 0.8})
    assert run(searcher) == 5
    assert run(study.searcher(sampler=sampler, n_trials_total=10), "again") == 3
    assert [trial.state for trial in study.record.trials].count("complete") == 8


def test_a_genetic_search_that_goes_on_does_not_begin_at_its_first_generation(study: Study) -> None:
    run(study.searcher(sampler="nsgaii", n_trials_total=9))
    sampler = feasible_sampler(study.space, "nsgaii", seed=3, n_startup_trials=4)
    memory = Memory(study.space, sampler, ["minimize", "minimize"])
    memory.learn(study.study.get_trials())
    memory.draw()
    generation = memory._study.trials[-1].system_attrs[sampler._shared._get_generation_key()]  # type: ignore[attr-defined] # NSGA-II's
    assert generation == 2  # nine completed trials in generations of four


def test_tpe_leaves_the_region_in_which_trials_fail_though_it_has_two_objectives() -> None:
    space = Space.load({"name": "one", "parameters": {"lr": {"type": "uniform", "low": 0.0, "high": 1.0}}})

    def tried(cause: Cause) -> int:
        stored = optuna.create_study(directions=["minimize", "minimize"])
        memory = Memory(space, feasible_sampler(space, seed=3), ["minimize", "minimize"])
        rates = []
        for number in range(50):
            memory.learn(stored.get_trials())
            params, drawn = memory.draw()
            memory.bind(number, drawn)
            fails = params["lr"] > 0.5
            stored.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.FAIL if fails else TrialState.COMPLETE,
                    values=None if fails else [1.0, 1.0],
                    params=params,
                    distributions=space.distributions(),
                    user_attrs={store.CAUSE: cause.value} if fails else {},
                )
            )
            rates.append(params["lr"])
        return sum(rate > 0.5 for rate in rates[25:])

    assert tried(Cause.NAN_LOSS) < tried(Cause.INFRASTRUCTURE)


# --- when it ends ----------------------------------------------------------------------------------------------------


def finished(points: list[tuple[float, float] | None]) -> StudyRecord:
    trials = (
        TrialRecord(n, "pruned" if one is None else "complete", None, {}, {}, values=one or ())
        for n, one in enumerate(points)
    )
    return StudyRecord("s", "minimize", tuple(trials), objectives=BOTH)


def test_a_plateau_is_a_front_that_stands_still() -> None:
    start: list[tuple[float, float] | None] = [(1.0, 3.0), (3.0, 1.0), (3.0, 3.0)]
    still = [*start, *[(3.0, 2.9), None] * 3]
    assert reason_to_stop(finished(still), plateau=6, n_startup=4) is None  # the start-up does not count
    reason = reason_to_stop(finished(still), plateau=6, n_startup=3) or ""
    assert reason.startswith("plateau: the front of 2 trials") and "over 6 trials" in reason
    grown = [*still[:-1], (1.5, 1.5)]
    assert reason_to_stop(finished(grown), plateau=6, n_startup=3) is None
    hardly = [*still[:-1], (1.0, 2.999)]
    assert reason_to_stop(finished(hardly), plateau=6, n_startup=3) is not None
    assert reason_to_stop(finished([None] * 20), plateau=3, n_startup=2) is None
    assert reason_to_stop(finished(still), plateau=None) is None


def test_a_grid_ends_when_each_of_its_points_was_tried_also_when_it_is_continued(tmp_path: Path) -> None:
    parameters = {name: SPACE["parameters"][name] for name in ("network_dim", "max_train_epochs")}
    parameters["learning_rate"] = {"type": "categorical", "choices": [1e-3]}
    study = Study(tmp_path, Space.load({"name": "grid", "parameters": parameters}))
    assert run(study.searcher(sampler="grid", n_trials_total=4)) == 4
    assert study.record.stop_reason == "all 4 trials have run"
    searcher = study.searcher(sampler="grid", n_trials_total=50)
    first, last = searcher.suggest("a"), searcher.suggest("b")
    assert isinstance(first, dict) and isinstance(last, dict)
    assert searcher.suggest("c") is None  # what runs may be lost, and have to be run again
    end(searcher, "a", first["params"])
    searcher.on_trial_complete("b", None, error=True)
    again = searcher.suggest("c")
    assert isinstance(again, dict) and again["params"] == last["params"]
    end(searcher, "c", again["params"])
    assert searcher.suggest("d") == searcher.FINISHED and not searcher.is_unfinished
    assert study.record.stop_reason == "grid: every point that keeps the rules has been tried"
    tried = [tuple(trial.params.values()) for trial in study.record.trials if trial.state == "complete"]
    assert len(tried) == len(set(tried)) == 6
    assert run(study.searcher(sampler="grid", n_trials_total=60)) == 0


# --- whole studies ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[StudyRecord, Path]:
    """A study by TPE, pruned on the loss, on two workers."""
    folder = tmp_path_factory.mktemp("results")
    return studies.run(spec(folder, budget={"n_trials": 14, "plateau": None})), folder / "trade"


def test_a_study_ends_with_a_front_and_prunes_on_one_scalar(whole: tuple[StudyRecord, Path]) -> None:
    record, _ = whole
    assert len(record.trials) == 14 and record.count("pruned") >= 1
    front = pareto(record)
    assert front and record.best in front
    for trial in record.trials:
        if trial.state == "complete":
            assert trial.values == (trial.history[trial.last_budget]["val_loss"], trial.metrics["cost"])
        assert trial.curve == {at: told["val_loss"] for at, told in trial.history.items()}


def test_the_folder_tells_the_trade(whole: tuple[StudyRecord, Path]) -> None:
    record, folder = whole
    best, front = record.best, pareto(record)
    assert best is not None
    told = json.loads((folder / "best_params.json").read_text())
    assert told["best_trial_number"] == best.number and told["best_value"] is None
    assert {one["trial_number"]: tuple(one["values"].values()) for one in told["front"]} == {
        trial.number: trial.values for trial in front
    }
    config = (folder / "best_config.yaml").read_text()
    assert yaml.safe_load(config) == best.config
    assert "Pareto front" in config or "nothing to trade" in config
    with (folder / "all_trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {int(row["number"]) for row in rows if row["pareto"] == "true"} == {trial.number for trial in front}
    assert all(bool(row["values.cost"]) == (row["state"] == "complete") for row in rows)
    page = (folder / "report.html").read_text()
    assert "The Pareto front" in page and "cost, minimized" in page and "minimize val_loss, minimize cost" in page


def test_each_picture_is_drawn_for_each_objective_beside_those_of_the_trade(whole: tuple[StudyRecord, Path]) -> None:
    _, folder = whole
    drawn = {path.name for path in (folder / "figures").glob("*.png")}
    each = {f"{kind}.{name}.png" for kind in figures.KINDS for name in ("val_loss", "cost")}
    assert drawn == each | {f"{kind}.png" for kind in figures.TRADE_KINDS}


def test_the_terminal_names_the_trade(whole: tuple[StudyRecord, Path]) -> None:
    record, folder = whole
    console = Console(width=200, record=True, quiet=False, file=(folder / "terminal.txt").open("w"))
    for shown in (view.panel(record, 14), view.top_table(record), view.summary(record, folder)):
        console.print(shown)
    text = console.export_text()
    assert record.best is not None
    for word in (f"trial {record.best.number}", "val_loss", "cost", "on the Pareto front", "✓"):
        assert word in text


def test_a_genetic_search_on_two_workers_is_continued(tmp_path: Path, ray_session: None) -> None:
    search = {"sampler": "nsgaii", "n_startup_trials": 4, "seed": 7}
    before = studies.run(spec(tmp_path, search=search, budget={"n_trials": 8, "plateau": None}))
    after = studies.run(spec(tmp_path, search=search, budget={"n_trials": 8, "plateau": None}), n_trials="+4")
    assert len(after.trials) == 12 and after.trials[:8] == before.trials
    assert after.count("complete") + after.count("pruned") == 12


def test_a_study_without_a_completed_trial_is_written_down_as_well(study: Study, tmp_path: Path) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"budget": 1, "score": 0.8, "metrics/val_loss": 0.8})
    folder = tmp_path / "out"
    exports.write_all(study.study, folder, {})
    assert len(figures.draw_all(study.record, study.study, folder / "figures")) == 14
    assert "No trial has completed" in report.write(study.record, folder).read_text()
    assert json.loads((folder / "best_params.json").read_text())["front"] == []
