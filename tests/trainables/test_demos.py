"""Data of the demos are where a node needs them, drawn once, whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainables import demos
from trainables.classification.source import DataSource
from trainables.classifier import Classifier
from trainables.diffusion_lora import DiffusionLora
from trainables.llm_lora import LlmLora

DEMOS = ("demo-character", "demo-logbook", "demo-shapes")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("demo", DEMOS)
def test_several_that_need_a_demo_draw_it_once(demo, own_cache, monkeypatch):
    drawn = []
    name, write = next((name, write) for name, write in demos._WRITERS.items() if name.startswith(demo))
    monkeypatch.setitem(demos._WRITERS, name, lambda path: drawn.append(path) or write(path))
    with ThreadPoolExecutor(4) as pool:
        (found,) = set(pool.map(lambda _: demos.path_of(demo), range(4)))
    assert len(drawn) == 1 and found.name == name and found.exists()
    assert sorted(path.name for path in found.parent.iterdir()) == sorted([name, "locks"]), "nothing half-drawn stays"


def test_a_node_whose_driver_has_the_demo_draws_it_for_itself(own_cache):
    """The trainer holds the driver's path; the node has an empty cache."""
    paths = {demo: own_cache / "of_the_driver" / demos.path_of(demo).name for demo in DEMOS}
    assert DiffusionLora(base="tiny-sd", dataset=str(paths["demo-character"])).load_dataset().train
    LlmLora(base="smollm2", data=str(paths["demo-logbook"])).check_data()
    shapes = Classifier(source=DataSource(paths["demo-shapes"]))
    assert len(shapes._examples({})) == 480


def test_other_data_are_left_alone(own_cache):
    assert demos.at_hand(own_cache / "mine") == own_cache / "mine"
    assert not Path(own_cache / "mine").exists()
