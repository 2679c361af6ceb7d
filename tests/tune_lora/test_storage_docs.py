"""docs/storage.md: its settings are settings, and its numbers are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from trainables import checkpoints, mirror, node_folders
from tune_lora import leases, mirroring, storage
from tune_lora import spec as specs

TEXT = (Path(__file__).parents[2] / "docs" / "storage.md").read_text("utf-8")
SETTINGS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", SETTINGS)
def test_settings_are_those_of_a_study(block: str) -> None:
    given = yaml.safe_load(block)
    study = specs.from_mapping({"name": "a", "trainer": "curve", "space": "lora_tiny", **given}, "docs/storage.md")
    for section, value in given.items():
        held = study.as_mapping()[section]
        assert held == value or set(value) <= set(held)


def test_it_has_settings() -> None:
    assert len(SETTINGS) == 3


def test_numbers_are_those_of_the_code() -> None:
    assert f"renewed every {leases.RENEW_SECONDS:.0f} seconds" in TEXT
    assert f"stood still for {leases.LEASE_SECONDS:.0f} seconds" in TEXT
    assert storage.PATIENCE_SECONDS == 600 and "for ten minutes" in TEXT
    assert mirroring.EVERY_SECONDS == 120 and "every two minutes" in TEXT
    assert checkpoints.KEPT == 2 and "The two newest stay" in TEXT
    assert node_folders.NODE_FOLDER in TEXT and "storage_patience_minutes" in TEXT


def test_places_of_the_mirror_are_those_of_the_code() -> None:
    assert "<mirror>/<study>/trials/<n>/" in TEXT
    assert "<mirror>/<study>/trials/<n>/" in (mirror.__doc__ or "").replace("\n", "")
