"""A trainer of the user's own: the contract, what its function may yield, and every mistake as one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contracts.trainer import TrainerContract
from trainables import user_module
from trainables.custom import Custom
from trainables.protocol import Cause, Report, TrialContext, TrialFailure
from tune_lora.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_trainer" / "my_module.py"


class TestTheExample(TrainerContract):
    @pytest.fixture
    def trainer(self) -> Custom:
        return Custom(f"{EXAMPLE}:train", "epochs", objective=("val_loss",))

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"learning_rate": 0.1, "momentum": 0.9, "batch_size": 64, "weight_decay": 1e-4, "epochs": 5}

    def test_it_learns(self, reports: list[Report]) -> None:
        assert reports[-1].metrics["val_acc"] > 0.85

    def test_it_says_what_it_measures(self, trainer: Custom, reports: list[Report]) -> None:
        assert set(trainer.metrics() or ()) == set(reports[-1].metrics)


def own(folder: Path, body: str, length: int | str | None = 4, **more: Any) -> Custom:
    """A trainer of ``train(params, trial)`` with this body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    text = f"from trainables.protocol import Report\n\ndef train(params, trial):\n{lines}\n"
    (folder / "mine.py").write_text(text)
    return Custom(f"{folder / 'mine.py'}:train", length, **more)


def run(trainer: Custom, folder: Path, params: dict[str, Any] | None = None, **more: Any) -> list[Report]:
    return list(trainer.run(TrialContext(params or {"x": 1}, folder, **more)))


def test_mappings_are_counted(tmp_path: Path) -> None:
    reports = run(own(tmp_path, "for n in range(4):\n    yield {'loss': n, 'seed': trial.seed}"), tmp_path, seed=7)
    assert [(report.budget, report.metrics, report.final) for report in reports] == [
        (n + 1, {"loss": n, "seed": 7}, n == 3) for n in range(4)
    ]


def test_what_goes_on_beyond_the_horizon_is_closed(tmp_path: Path) -> None:
    body = "try:\n    while True:\n        yield {'loss': 1}\nfinally:\n    (trial.folder / 'closed').touch()"
    assert len(run(own(tmp_path, body), tmp_path)) == 4
    assert (tmp_path / "closed").exists()


def test_one_that_ends_early_is_complete_at_the_horizon_with_its_last_values(tmp_path: Path) -> None:
    trainer = own(tmp_path, "yield {'loss': 3, 'acc': 0.5}\nyield {'loss': 2}", 9)
    reports = run(trainer, tmp_path, decide_at=frozenset({1, 4, 8}))
    assert [report.budget for report in reports] == [1, 2, 4, 8, 9]
    assert reports[-1].final and reports[-1].metrics == {"loss": 2, "acc": 0.5}


def test_a_report_may_say_its_own_budget(tmp_path: Path) -> None:
    reports = run(own(tmp_path, "yield Report(2, {'a': 1})\nyield Report(3, {'a': 0}, final=True)", 10), tmp_path)
    assert [(report.budget, report.final) for report in reports] == [(2, False), (10, True)]


def test_the_horizon_is_a_number_a_setting_or_the_functions_own(tmp_path: Path) -> None:
    body = "yield {'a': 1}\ntrain.horizon = 3"
    assert own(tmp_path, body, 6).horizon({}) == 6
    assert own(tmp_path, body, "steps").horizon({"steps": 12}) == 12
    module = tmp_path / "attributes.py"
    module.write_text(
        "def train(params, trial):\n    yield {'a': 1}\ntrain.unit = 'step'\n"
        "train.horizon = lambda params: 2 * params['n']\n"
    )
    trainer = Custom(f"{module}:train")
    assert (trainer.horizon({"n": 4}), trainer.budget_unit, trainer.metrics()) == (8, "step", None)
    assert trainer.check({"n": 4}) == []


@pytest.mark.parametrize(
    ("length", "params", "said"),
    [
        ("epochs", {}, "epochs is missing"),
        ("epochs", {"epochs": 2.5}, "epochs: got 2.5; must be a whole number from 1"),
        ("epochs", {"epochs": "many"}, "epochs: got 'many'"),
        (0, {}, "custom.horizon: got 0"),
        (None, {}, "custom.horizon is missing"),
    ],
)
def test_a_horizon_that_is_none_is_one_line(tmp_path: Path, length: Any, params: dict[str, Any], said: str) -> None:
    (line,) = own(tmp_path, "yield {'a': 1}", length).check(params)
    assert said in line


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("float('nan')", "custom.horizon: got nan; must be a whole number from 1"),
        ("float('inf')", "custom.horizon: got inf; must be a whole number from 1"),
        ("[4]", "custom.horizon: got [4]; must be a whole number from 1"),
        ("lambda params: None", "custom.horizon: got None; must be a whole number from 1"),
        ("lambda params: params['nope']", "raised KeyError: 'nope'; must give a whole number from 1"),
        ("lambda params: 6 // params['x']", "raised ZeroDivisionError: "),
        ("lambda: 3", "raised TypeError: "),
    ],
)
def test_an_attribute_that_is_no_horizon_is_one_line(tmp_path: Path, attribute: str, said: str) -> None:
    trainer = Custom(f"{tmp_path / 'mine.py'}:train")
    (tmp_path / "mine.py").write_text(f"def train(params, trial):\n    yield {{'a': 1}}\ntrain.horizon = {attribute}\n")
    (line,) = trainer.check({"x": 0})
    assert line.startswith("custom.horizon: ") and said in line and len(line.splitlines()) == 1
    with pytest.raises(InputError) as caught:  # a configuration that nobody checked
        trainer.horizon({"x": 0})
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("body", "cause", "said"),
    [
        ("yield {'loss': 1}\nyield {'acc': 1, 'val_loss': float('nan')}", Cause.NAN_LOSS, "val_loss is nan at epoch 2"),
        ("yield {'loss': float('inf')}", Cause.NAN_LOSS, "loss is inf at epoch 1"),
        ("yield 3", Cause.CRASH, "yielded 3 after budget 0; must be a mapping of metrics or a Report"),
        ("yield {'loss': 'low'}", Cause.CRASH, "yielded loss: 'low' at 1; must be a number"),
        ("yield Report(9, {'loss': 1})", Cause.CRASH, "budget 9 after 0; must be above it and up to 4"),
        ("if params['x'] > 9:\n    yield {}", Cause.CRASH, "ended before it yielded anything"),
        ("for n in range(4):\n    yield {'loss': n}", Cause.CRASH, "never reported 'score'"),
        ("yield {'loss': 1}\nraise MemoryError('12 GiB')", Cause.OUT_OF_MEMORY, "12 GiB"),
    ],
)
def test_what_goes_wrong_has_a_cause_and_one_line(tmp_path: Path, body: str, cause: Cause, said: str) -> None:
    with pytest.raises(TrialFailure) as caught:
        run(own(tmp_path, body, objective=("score",)), tmp_path)
    assert caught.value.cause is cause
    assert said in caught.value.message and len(caught.value.message.splitlines()) == 1


def test_torch_running_out_of_memory_is_known_by_its_name(tmp_path: Path) -> None:
    body = (
        "class OutOfMemoryError(RuntimeError):\n    pass\nyield {'a': 1}\nraise OutOfMemoryError('tried 2 GiB\\nmore')"
    )
    with pytest.raises(TrialFailure, match=r"^tried 2 GiB$"):
        run(own(tmp_path, body), tmp_path)
    with pytest.raises(RuntimeError, match="a bug"):
        run(own(tmp_path, "yield {'a': 1}\nraise RuntimeError('a bug')"), tmp_path)


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("def other(params, trial):\n    yield 1", "train", "has no 'train'"),
        ("def trian(params, trial):\n    yield 1", "train", "did you mean 'trian'?"),
        ("def train(params, trial):\n    return 1", "train", "returns once; must be a generator function"),
        ("def train(params):\n    yield 1", "train", "takes (params); must take two arguments, (params, trial)"),
        ("train = 3", "train", "is a int; must be a generator function"),
        ("def train(params, trial)\n    yield 1", "train", "mine.py:1: expected ':'"),
        ("import absent_module", "train", "needs the module 'absent_module', which is not installed"),
        ("1 / 0", "train", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("", "no-name", "must be module:function, such as my_module:train"),
    ],
)
def test_a_function_that_cannot_be_had_is_one_line(tmp_path: Path, text: str, target: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError) as caught:
        user_module.load(f"{tmp_path / 'mine.py'}:{target}")
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("target", ["absent_module:train", "absent.py:train"])
def test_a_module_that_is_not_there_is_one_line(target: str) -> None:
    with pytest.raises(InputError, match="does not exist; must be a Python file beside the study file"):
        user_module.load(target)


def test_a_module_is_found_beside_the_study_file_and_importable_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from beside import train\n")
    (tmp_path / "beside.py").write_text("def train(params, trial):\n    yield {'a': 1}\n")
    for name in ("mine:train", "mine.py:train"):
        assert user_module.located(name, tmp_path) == f"{tmp_path / 'mine.py'}:train"
    assert user_module.located("trainables.curve:Curve", tmp_path) == "trainables.curve:Curve"
    assert user_module.load(user_module.located("mine:train", tmp_path)).__name__ == "train"


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    import os

    assert own(tmp_path, "yield {'a': 1}", None).function().__code__.co_firstlineno == 3
    trainer = own(tmp_path, "yield {'a': 1}\ntrain.later = True")
    os.utime(tmp_path / "mine.py", (1e9, 1e9))
    assert run(trainer, tmp_path)
    assert trainer.function().later
