"""The `transfer` section of a study file, and the trainer that a study makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.space import Space
from trainables.protocol import TrialContext
from trainables.transfer.judging import ScoreWeights
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage
from tune_lora import build, spec, trainers
from tune_lora.errors import InputErrors

ROOT = Path(__file__).parents[2]
STUDY = {"name": "t", "trainer": "two_stage", "space": "transfer_aware"}
TABLES = {
    "stage1": {"path": "computed.csv", "target": "chi", "features": ["a"]},
    "stage2": {"path": "measured.csv", "target": "chi", "features": ["a"]},
}


def trainer_of(**more) -> TwoStage:
    made = trainers.trainer_of(spec.from_mapping(STUDY | more, "study"))
    assert isinstance(made, TwoStage)
    return made


def test_without_tables_it_is_the_embedded_problem():
    assert trainer_of().source == SyntheticTransfer()
    assert trainer_of(transfer={"synthetic": {"seed": 4}}).source == SyntheticTransfer(seed=4)


def test_settings_reach_the_trainer():
    made = trainer_of(
        transfer={"weights": {"sol_f1": 0.5}, "exclude_overlap": False, "stage1_seed": None, "cache": False},
        cross_validation={"n_folds": 3, "aggregation": "pessimistic", "seed": 8},
    )
    assert made.weights == ScoreWeights(sol_f1=0.5)
    assert (made.exclude_overlap, made.stage1_seed, made.cache) == (False, None, None)
    assert (made.n_folds, made.aggregation, made.fold_seed) == (3, "pessimistic", 8)


@pytest.mark.parametrize(
    ("scheduler", "folds"), [("none", "auto"), ("asha", "auto"), ("wilcoxon", "blocks"), ("median", "blocks")]
)
def test_folds_train_side_by_side_unless_a_pruner_looks_at_each(scheduler, folds):
    assert trainer_of(scheduler={"name": scheduler}).folds == folds
    assert trainer_of(scheduler={"name": scheduler}, transfer={"folds": "sequential"}).folds == "sequential"


def test_the_final_trainer_is_the_final_form_of_the_same():
    study = spec.from_mapping(STUDY, "study")
    final = trainers.final_trainer_of(study)
    assert isinstance(final, TwoStage) and final.final
    params = Space.load("transfer_aware", where="space").resolve({**_defaults()})
    assert final.horizon(params) == 100 + 200
    assert trainers.trainer_of(study).horizon(params) == 100 + 5 * 20


def _defaults():
    return Space.load("transfer_aware", where="space").defaults()


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        ({"stage1": TABLES["stage1"]}, "got stage1 without stage2; must be both tables"),
        (TABLES | {"synthetic": {}}, "got synthetic beside tables; must be one of them"),
        (TABLES | {"stage2": {"path": "measured.csv"}}, "stage2.target is missing; must be the column of numbers"),
        (
            {"synthetic": {"n_stage1": 20, "n_stage2": 100}},
            "n_stage2: got 100 beside n_stage1 20; must be at most twice",
        ),
        ({"folds": "all"}, "transfer.folds: got 'all'"),
        ({"exclude_overlaps": True}, "exclude_overlap"),
    ],
)
def test_a_mistake_is_one_line(transfer, said):
    with pytest.raises(InputErrors) as caught:
        spec.from_mapping(STUDY | {"transfer": transfer}, "study")
    assert len(caught.value.mistakes) == 1 and said in caught.value.mistakes[0]


def test_tables_that_are_absent_are_all_named_before_anything_starts():
    with pytest.raises(InputErrors) as caught:
        build.plan(spec.from_mapping(STUDY | {"transfer": TABLES}, "study"))
    text = str(caught.value)
    assert "computed.csv" in text and "measured.csv" in text


def test_paths_count_from_the_study_file(tmp_path):
    for table in TABLES.values():
        (tmp_path / table["path"]).write_text("a,chi\n1,2\n")
    found = spec.from_mapping(STUDY | {"transfer": TABLES}, "study", relative_to=tmp_path)
    assert found.transfer.stage1.path == str((tmp_path / "computed.csv").resolve())
    assert found.transfer.stage2.path == str((tmp_path / "measured.csv").resolve())


def test_what_is_written_reads_back_to_the_same():
    for transfer in ({}, TABLES, {"synthetic": {"seed": 3}, "stage1_seed": None}):
        study = spec.from_mapping(STUDY | {"transfer": transfer}, "study")
        assert spec.from_mapping(study.as_mapping(), "study") == study


@pytest.mark.parametrize("name", ["transfer_aware", "transfer_stage2"])
def test_every_configuration_of_a_shipped_space_is_known_to_the_trainer(name):
    space = Space.load(name, where="space")
    examples = [space.resolve(space.defaults()), *space.examples()]
    assert not [mistake for params in examples for mistake in TwoStage().check(params)]
    known = trainers.KINDS["two_stage"].rules
    assert {key for params in examples for key in params} <= set(known)
    assert space.priors[0].name == "baseline"


def test_the_shipped_study_is_ready_to_run():
    ready = build.plan(spec.load(ROOT / "search_spaces" / "studies" / "transfer.yaml"))
    assert isinstance(ready.trainer, TwoStage) and ready.trainer.folds == "blocks"


def chi_with_tables_in(folder: Path) -> spec.StudySpec:
    """The shipped study of chi, its files looked for in a folder."""
    shipped = spec.load(ROOT / "search_spaces" / "studies" / "chi.yaml")
    tables = shipped.transfer.with_paths(lambda path: str(folder / Path(path).name))
    return shipped.model_copy(update={"transfer": tables})


def test_the_shipped_study_of_chi_names_its_tables_and_nothing_else_is_wrong(tmp_path):
    with pytest.raises(InputErrors) as caught:
        build.plan(chi_with_tables_in(tmp_path))
    assert len(caught.value.mistakes) == 2 and all("does not exist" in line for line in caught.value.mistakes)


def test_the_shipped_study_of_chi_reads_the_tables_that_it_is_about(data, tmp_path):
    pytest.importorskip("rdkit")
    if not (data / "chi").is_dir():
        pytest.skip(f"{data / 'chi'} is absent")
    ready = build.plan(chi_with_tables_in(data / "chi"))
    sizes, *notes = ready.trainer.prepare(TrialContext(params={}, folder=tmp_path))["calibration"]["data"]
    assert sizes.startswith("1206 computed and 1190 measured rows of ") and "12 groups; 632 rows with label 1" in sizes
    assert any("polymer_class: 134 rows have no group; they are one group" in note for note in notes)
    assert any(note.startswith("1206 of 1206 computed rows are about measured entities;") for note in notes)
    assert (ready.trainer.n_folds, ready.trainer.fold_seed, ready.trainer.folds) == (5, 0, "blocks")
    assert ready.space.resolve({})["freeze_encoder_stage2"] is False
