"""Each loss term against its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from trainables.classification import losses, metrics
from trainables.classification.network import Network, Output, Shape
from trainables.classification.objective import Objective
from trainables.classification.settings import chosen

ANCHORS = torch.tensor([[0.0, 0.0], [3.0, 4.0]])


def test_fit_is_the_mean_squared_distance_to_the_own_anchor_a_dimension() -> None:
    latents = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert float(losses.fit(latents, ANCHORS, torch.tensor([0, 0]))) == 0.0
    assert float(losses.fit(latents, ANCHORS, torch.tensor([0, 1]))) == pytest.approx((0 + 25 / 2) / 2)


def test_spread_is_smoothed_a_class_and_kept_where_there_are_no_rows() -> None:
    latents, before = torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.tensor([2.0, 7.0])
    found = losses.spread_of(latents, ANCHORS, torch.tensor([0, 0]), before)
    assert found.tolist() == pytest.approx([0.9 * 2.0 + 0.1 * (1 + 9) / 2, 7.0])


def test_points_lie_about_their_anchor_with_the_spread_of_the_class() -> None:
    torch.manual_seed(0)
    spread = torch.tensor([0.0, 4.0])
    points = losses.points_around(ANCHORS, spread, 1e-4, 20_000).reshape(2, 20_000, 2)
    assert points.mean(dim=1).numpy() == pytest.approx(ANCHORS.numpy(), abs=0.05)
    assert points.std(dim=1).numpy() == pytest.approx(np.array([[0.01, 0.01], [2.0, 2.0]]), rel=0.03)


def test_separation_is_zero_where_the_head_tells_all_points_apart_and_log_n_where_it_tells_nothing() -> None:
    right = torch.tensor([[100.0, 0.0], [100.0, 0.0], [0.0, 100.0], [0.0, 100.0]])
    assert float(losses.separation(right, 2)) == pytest.approx(0.0, abs=1e-6)
    assert float(losses.separation(torch.zeros(4, 2), 2)) == pytest.approx(math.log(2))


def test_groups_without_rows_make_no_smaller_step() -> None:
    each = torch.tensor([1.0, 3.0, 5.0])
    found = losses.by_group(each, torch.tensor([0, 0, 2]), ("a", "b", "c"))
    assert {name: float(value) for name, value in found.items()} == {"a": 2.0, "c": 5.0}
    assert float(losses.weighted(found, {"a": 0.1, "b": 0.6, "c": 0.3})) == pytest.approx((0.2 + 1.5) / 0.4)


def test_classification_is_torchs_cross_entropy_and_smoothing_is_torchs() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    settings = chosen({"label_smoothing": 0.1, "hidden": "4"})
    network = Network(Shape("tabular", 3, 2), settings)
    found = Objective(settings, ("table",), ()).loss(network, Output(logits, logits), labels, None, 0)
    assert float(found) == pytest.approx(float(F.cross_entropy(logits, labels, label_smoothing=0.1)))


def test_every_modality_is_trained_beside_the_fused_head() -> None:
    labels = torch.tensor([0, 1])
    fused, image, text = torch.randn(3, 2, 2)
    settings = chosen({"widths": "2"})
    network = Network(Shape("image_text", 2), settings)
    output = Output(fused, fused, {"image": (image, image), "text": (text, text)})
    found = Objective(settings, ("image", "text"), ()).loss(network, output, labels, None, 0)
    expected = F.cross_entropy(fused, labels) + (F.cross_entropy(image, labels) + F.cross_entropy(text, labels)) / 2
    assert float(found) == pytest.approx(float(expected))


def test_a_weak_modality_gains_weight_in_group_robust_training() -> None:
    settings = chosen({"widths": "2", "groupdro_enabled": True, "groupdro_warmup_epochs": 0, "groupdro_eta": 0.1})
    network, labels = Network(Shape("image_text", 2), settings), torch.tensor([0, 1])
    good, bad = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    objective = Objective(settings, ("image", "text"), ())
    for _ in range(5):
        objective.loss(network, Output(good, good, {"image": (good, good), "text": (bad, bad)}), labels, None, 0)
    assert objective.weights.q["text"] > 0.5 > objective.weights.q["image"]


def test_f1_is_scikit_learns() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        truth, predicted = chance.integers(0, 5, (2, 12))
        expected = f1_score(truth, predicted, average="macro", zero_division=0)
        assert metrics.f1_macro(predicted, truth) == pytest.approx(expected)


def test_group_metrics_name_each_group_and_the_worst() -> None:
    told = metrics.by_group(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 0]), ["x", "x", "y", "y"])
    assert metrics.group_metrics(told) == {"acc_x": 1.0, "acc_y": 0.0, "worst_group_acc": 0.0}
    assert metrics.group_metrics({}) == {}
