"""The study file: every mistake is one line with its place, and what is right means the same after a round trip."""

import pytest
import yaml

from tune_lora import objective_spec, spec
from tune_lora.errors import InputError, InputErrors

GOOD = """\
name: my-study
dataset:
  path: images
space: lora_tiny
"""


def write(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def mistakes(tmp_path, text):
    with pytest.raises(InputErrors) as caught:
        spec.load(write(tmp_path, text))
    return caught.value.mistakes


def test_a_short_file_is_filled_with_the_documented_defaults(tmp_path):
    read = spec.load(write(tmp_path, GOOD))
    assert (read.base, read.budget.n_trials, read.budget.plateau) == ("tiny-sd", 20, 10)
    assert (read.search.sampler, read.search.n_startup_trials, read.scheduler.name) == ("tpe", 10, "asha")
    assert read.objective.direction == "minimize" and read.tracking.wandb == "auto"


@pytest.mark.parametrize(
    ("space", "budget", "trials"),
    [
        ("lora_v2_1", "", 20),
        ("lora_v1", "", 50),
        ("lora_v2_1", "budget: {plateau: null}\n", 20),
        ("lora_v2_1", "budget: {n_trials: 7}\n", 7),
        ("my.yaml", "", 12),
        ("absent.yaml", "", 50),  # said when the study is built
    ],
)
def test_a_study_has_as_many_trials_as_its_space_says_unless_it_says_so_itself(tmp_path, space, budget, trials):
    range_of = "{type: uniform, low: 0, high: 1}"
    (tmp_path / "my.yaml").write_text(f"name: my\nn_trials: 12\nparameters:\n  rate: {range_of}\n")
    read = spec.load(write(tmp_path, f"name: a\ndataset: {{path: x}}\nspace: {space}\n{budget}"))
    assert read.budget.n_trials == trials
    assert spec.from_mapping(read.as_mapping(), "again").budget.n_trials == trials
    assert read.budget.plateau == (None if "plateau" in budget else 10)


def test_the_resolved_file_reads_back_equal(tmp_path):
    read = spec.load(write(tmp_path, GOOD + "objective: {weights: {identity: 0.5}, targets: {brightness: 0.6}}\n"))
    again = spec.from_mapping(yaml.safe_load(yaml.safe_dump(read.as_mapping())), "again")
    assert again == read


@pytest.mark.parametrize(
    ("addition", "line", "parts"),
    [
        ("budgett: {}\n", 5, ["unknown key 'budgett'", "did you mean 'budget'"]),
        ("budget: {n_trials: 0}\n", 5, ["budget.n_trials", "got 0", "greater than or equal to 1"]),
        ("budget:\n  timeout_hours: -1\n", 6, ["budget.timeout_hours", "got -1"]),
        ("search: {sampler: tpo}\n", 5, ["did you mean 'tpe'"]),
        ("scheduler: {name: ashaa}\n", 5, ["did you mean 'asha'"]),
        ("scheduler: {eta: 1}\n", 5, ["scheduler.eta", "greater than 1"]),
        ("objective: {weights: {styl: 1}}\n", 5, ["did you mean 'style'"]),
        ("objective: {weights: {style: -1}}\n", 5, ["must be 0 or more"]),
        ("objective: {direction: down}\n", 5, ["objective.direction", "'minimize' or 'maximize'"]),
        ("objective: {targets: mine}\n", 5, ["must be reference, spec, or numbers"]),
        ("resources: {gpu: 1.5}\n", 5, ["resources.gpu", "share up to 1 or a whole number"]),
        ("resources: {concurrent: 0}\n", 5, ["resources.concurrent", "whole number from 1"]),
        ("storage: study.db\n", 5, ["storage", "Optuna storage URL"]),
        ("evaluation: {n_images: 1}\n", 5, ["evaluation.n_images"]),
        ("evaluation: {prompts: 3}\n", 5, ["evaluation.prompts"]),
        ("budget: {n_trials: yes}\n", 5, ["budget.n_trials", "got True; must be a number"]),
        ("scheduler: {eta: on}\n", 5, ["scheduler.eta", "got True; must be a number"]),
        ("resources: {cpu: false}\n", 5, ["resources.cpu", "got False; must be a number"]),
    ],
)
def test_each_mistake_is_one_line_with_its_place(tmp_path, addition, line, parts):
    found = mistakes(tmp_path, GOOD + addition)
    assert len(found) == 1 and "\n" not in found[0]
    assert found[0].startswith(f"{tmp_path / 'study.yaml'}:{line}: ")
    for part in parts:
        assert part in found[0]


def test_all_mistakes_come_at_once(tmp_path):
    found = mistakes(tmp_path, "name: 'a b'\ndataset: {pathh: x}\nspace: lora_tiny\nbudget: {n_trials: many}\n")
    assert len(found) == 4


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".hidden", "x" * 101, "a b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    assert "name" in mistakes(tmp_path, GOOD.replace("my-study", f'"{name}"'))[0]


def test_the_dataset_may_only_be_missing_where_no_images_are_trained(tmp_path):
    assert "dataset is missing" in mistakes(tmp_path, "name: a\nspace: lora_tiny\n")[0]
    assert spec.load(write(tmp_path, "name: a\nspace: lora_tiny\ntrainer: curve\n")).dataset is None


@pytest.mark.parametrize("text", ["", "- a\n", "a: [1\n", "just words\n", "\tname: x\n"])
def test_what_is_no_mapping_is_one_line(tmp_path, text):
    with pytest.raises(InputError) as caught:
        spec.load(write(tmp_path, text))
    assert "\n" not in str(caught.value) and "study.yaml" in str(caught.value)


def test_a_binary_file_is_one_line(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"study\.yaml"):
        spec.load(path)


def test_yaml_that_would_build_objects_is_refused(tmp_path):
    with pytest.raises(InputError):
        spec.load(write(tmp_path, GOOD + "preset: !!python/object/apply:os.getcwd []\n"))


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match="tune-lora init"):
        spec.load(tmp_path / "nothing.yaml")


def test_paths_count_from_the_file(tmp_path):
    (tmp_path / "images").mkdir()
    assert spec.load(write(tmp_path, GOOD)).dataset.path == str(tmp_path / "images")


def test_a_bare_off_is_a_word(tmp_path):
    assert spec.load(write(tmp_path, GOOD + "tracking: {wandb: off}\n")).tracking.wandb == "off"


def test_differences_name_what_defines_a_study_and_nothing_else(tmp_path):
    old = spec.load(write(tmp_path, GOOD)).as_mapping()
    new = spec.load(
        write(tmp_path, GOOD + "budget: {n_trials: 99}\nobjective: {weights: {identity: 1}}\n")
    ).as_mapping()
    assert spec.differences(old, new) == ["objective.weights.identity: None -> 1.0"]


def test_a_null_that_switches_something_off_is_still_there_after_a_round_trip(tmp_path):
    read = spec.load(write(tmp_path, GOOD + "budget: {plateau: null}\nfixed: {min_snr_gamma: null}\n"))
    assert read.budget.plateau is None
    written = yaml.safe_load(yaml.safe_dump(read.as_mapping()))
    assert spec.from_mapping(written, "again") == read
    assert "gpu" not in written["resources"] and "preset" not in written  # what says nothing is left out


def test_a_file_that_holds_itself_is_one_line(tmp_path):
    with pytest.raises(InputError, match="alias of itself"):
        spec.load(write(tmp_path, "name: &loop [*loop]\n"))


def test_a_seed_that_no_generator_takes_is_refused(tmp_path):
    assert "seed" in mistakes(tmp_path, GOOD + "search: {seed: -1}\n")[0]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("{targets: {brightnes: 0.5}}", "unknown target 'brightnes'; did you mean 'brightness'"),
        ("{targets: {brightness: .nan}}", "target brightness is nan; must be a number from -1 to 1"),
        ("{weights: {style: .inf}}", "weight style is inf; must be 0 or more, and finite"),
    ],
)
def test_an_objective_that_cannot_be_computed_is_refused(tmp_path, objective, message):
    assert message in mistakes(tmp_path, GOOD + f"objective: {objective}\n")[0]


def test_the_targets_are_those_that_the_score_has():
    from trainables.evaluation.targets import Targets

    assert set(objective_spec.TARGETS) == set(Targets.__dataclass_fields__)
