"""Every picture is written for every study, and says what is missing where there is nothing to draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from tune_lora import figures, store
from tune_lora.errors import InputError
from tune_lora.figures._axis import ParamAxis, param_axes
from tune_lora.figures._canvas import Missing, number, robust_limits
from tune_lora.figures._importance import importances
from tune_lora.figures._parameters import contour, parallel_coordinate, slice_plot
from tune_lora.figures._progress import intermediate_values, optimization_history

X: dict[str, BaseDistribution] = {"x": FloatDistribution(1e-5, 1e-3, log=True), "n": IntDistribution(1, 9)}


def study_of(
    *trials: tuple[dict[str, Any], float | None], domains: dict[str, BaseDistribution] = X, direction: str = "minimize"
) -> optuna.Study:
    """An in-memory study; a trial without a value is pruned."""
    study = optuna.create_study(direction=direction)
    for params, value in trials:
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        own = {name: domains[name] for name in params}
        study.add_trial(create_trial(state=state, value=value, params=params, distributions=own))
    return study


def written(study: optuna.Study, folder: Path) -> list[Path]:
    paths = figures.draw_all(store.read(study), study, folder)
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) >= 200
            assert np.ptp(np.asarray(picture.convert("L"))) > 100, f"{path.name} is blank"
    return paths


def test_a_results_folder_gets_the_six_pictures(example: Any) -> None:
    paths = figures.draw_all(example.record, example.study, example.folder / "figures")
    assert {path.name for path in paths} == {
        "optimization_history.png",
        "param_importances.png",
        "parallel_coordinate.png",
        "slice.png",
        "contour.png",
        "intermediate_values.png",
    }
    assert {path.parent for path in paths} == {example.folder / "figures"}


def test_two_hyperparameters_asked_for_are_one_big_picture(example: Any, tmp_path: Path) -> None:
    sizes = {}
    for name, params in {"two": ["learning_rate", "network_dim"], "all": None}.items():
        path = figures.draw(example.record, example.study, "contour", tmp_path / f"{name}.png", params)
        with Image.open(path) as picture:
            sizes[name] = picture.size
    assert sizes["two"][1] > 1.4 * sizes["all"][1] and sizes["two"][0] < sizes["all"][0]


def test_hyperparameters_are_asked_for_by_short_names() -> None:
    domains: dict[str, BaseDistribution] = {
        name: FloatDistribution(0, 1) for name in ("optimizer.lr", "a.x", "b.x", "width")
    }
    record = store.read(study_of((dict.fromkeys(domains, 0.5), 1.0), domains=domains))
    assert figures.named(record, ["lr,width", "a.x"]) == ["optimizer.lr", "width", "a.x"]
    assert figures.named(record, None) is figures.named(record, []) is None
    with pytest.raises(InputError) as caught:
        figures.named(record, ["x", "widht"])
    ambiguous, unknown = str(caught.value).splitlines()
    assert "may be one of a.x, b.x" in ambiguous and "did you mean 'width'?" in unknown


def test_a_logarithmic_axis_over_decades_is_marked_at_powers_of_ten() -> None:
    assert ParamAxis("x", 1e-5, 1e-1, log=True).ticks(5)[1] == ["1e-5", "1e-4", "0.001", "0.01", "0.1"]
    assert ParamAxis("x", 6e-5, 1.2e-4, log=True).ticks(3)[1][0] == "6e-5"


EDGES = {
    "no trial": study_of(),
    "only pruned": study_of(({"x": 1e-4, "n": 2}, None)),
    "one completed": study_of(({"x": 1e-4, "n": 2}, 0.5)),
    "two completed": study_of(({"x": 1e-4, "n": 2}, 0.5), ({"x": 5e-4, "n": 3}, 0.4)),
    "identical scores": study_of(*(({"x": k * 1e-4, "n": k}, 0.5) for k in range(1, 8))),
    "constant parameters": study_of(*(({"x": 1e-4, "n": 2}, 0.1 * k) for k in range(6))),
    "one parameter": study_of(*(({"n": k}, 0.1 * k) for k in range(1, 7))),
    "no parameter": study_of(*(({}, 0.1 * k) for k in range(6))),
    "conditional": study_of(*(({"x": k * 1e-4} | ({"n": k} if k % 2 else {}), 0.1 * k) for k in range(1, 10))),
    "never together": study_of(*(({"x": k * 1e-4} if k % 2 else {"n": k}, 0.1 * k) for k in range(1, 10))),
    "maximized": study_of(*(({"x": k * 1e-4, "n": k}, 0.1 * k) for k in range(1, 9)), direction="maximize"),
    "far outlier": study_of(*(({"x": k * 1e-4, "n": k}, 1e6 if k == 4 else 0.1 * k) for k in range(1, 9))),
    "hostile names": study_of(
        *(({"$x^{": k, "<b>名前 " + "long" * 30: "$\\frac{" if k % 2 else None}, 0.1 * k) for k in range(1, 7)),
        domains={
            "$x^{": IntDistribution(1, 9),
            "<b>名前 " + "long" * 30: CategoricalDistribution(["$\\frac{", None, True]),
        },
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_every_picture_is_drawn_of(name: str, tmp_path: Path) -> None:
    assert len(written(EDGES[name], tmp_path)) == len(figures.KINDS)


@pytest.mark.parametrize(
    ("painter", "study", "says"),
    [
        (optimization_history, "no trial", "No trial has finished yet"),
        (intermediate_values, "two completed", "No trial has reported a score on its way"),
        (slice_plot, "only pruned", "at least 1 completed trial; 0 trials completed so far"),
        (parallel_coordinate, "no parameter", "No trial of this study has a hyperparameter"),
        (contour, "one parameter", "two hyperparameters"),
        (contour, "constant parameters", "two hyperparameters"),
        (importances, "two completed", "at least 4 completed trials; 2 trials completed so far"),
        (importances, "identical scores", "All 7 completed trials have the same score"),
        (importances, "constant parameters", "No hyperparameter took two values"),
    ],
)
def test_what_is_missing_is_said(painter: Any, study: str, says: str) -> None:
    with pytest.raises(Missing, match=says):
        painter(store.read(EDGES[study]), EDGES[study], None)


def test_importances_find_the_parameter_that_decides() -> None:
    rng = np.random.default_rng(0)
    trials = [({"x": float(x), "n": int(n)}, 10 * float(np.log10(x)) + 0.01 * int(n))
              for x, n in zip(10 ** rng.uniform(-5, -3, 30), rng.integers(1, 10, 30), strict=True)]  # fmt: skip
    study = study_of(*trials)
    shares = importances(store.read(study), study)
    assert shares["x"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


def test_a_reference_outside_the_space_does_not_hide_the_importances(example: Any) -> None:
    assert "learning_rate" not in example.record.trials[0].params
    shares = importances(example.record, example.study)
    assert set(shares) == set(example.record.parameter_names)
    assert max(shares, key=shares.__getitem__) == "learning_rate"


def test_axes_are_logarithmic_for_log_parameters_and_hold_references(example: Any) -> None:
    axes = param_axes(example.record, example.study)
    rate = axes["learning_rate"]
    assert rate.log
    assert (rate.low, rate.high) == (6e-5, 1.3e-4)
    assert rate.place((6e-5 * 1.3e-4) ** 0.5) == pytest.approx(0.5)
    assert axes["max_train_epochs"].choices == (12, 16, 18, 20)
    assert axes["optimizer_type"].choices == ("AdamW", "AdamW8bit")


@given(st.floats(1e-6, 1e6), st.floats(1.0001, 1e4), st.booleans(), st.integers(2, 8))
def test_ticks_lie_on_the_axis_in_order(low: float, ratio: float, log: bool, most: int) -> None:
    places, labels = ParamAxis("x", low, low * ratio, log=log).ticks(most)
    assert places == sorted(places)
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    assert len(places) == len(labels)


@given(st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_limits_hold_most_scores(values: list[float]) -> None:
    limits = robust_limits(values)
    if limits is None:
        assert not values or np.ptp(values) <= 1e-9 * max(abs(value) for value in values)
    else:
        assert sum(limits[0] <= value <= limits[1] for value in values) >= len(values) / 2


@pytest.mark.parametrize(
    ("value", "text"), [(6e-5, "6e-5"), (1.25e-4, "1.25e-4"), (0.75, "0.75"), (0, "0"), (128, "128")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_same_study_gives_the_same_bytes(example: Any, tmp_path: Path) -> None:
    first, second = (
        figures.draw(example.record, example.study, "slice", tmp_path / name) for name in ("a.png", "b.png")
    )
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", figures.KINDS)
def test_only_the_hyperparameters_asked_for(kind: Any, example: Any, tmp_path: Path) -> None:
    some = ["learning_rate", "network_dim"]
    assert figures.draw(example.record, example.study, kind, tmp_path / "some.png", some).is_file()


def test_mistakes_name_what_is_available(example: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"figure 'slize' is unknown; did you mean 'slice'\?"):
        figures.draw(example.record, example.study, "slize", tmp_path / "x.png")  # type: ignore[arg-type] # the mistake
    with pytest.raises(InputError, match=r"'learning_rat' is not in study 'glow'; did you mean 'learning_rate'\?"):
        figures.draw(example.record, example.study, "slice", tmp_path / "x.png", ["learning_rat"])
    assert not list(tmp_path.iterdir())
