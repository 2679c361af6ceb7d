"""docs/metrics.md names every metric of every trainer, and its numbers are those that were measured."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.docs.blocks import ROOT
from trainables import classifier, diffusion_lora, llm_lora, two_stage
from tune_lora.records import CLOCK

PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")
RESULTS: dict[str, dict[str, Any]] = {
    one["name"]: one for one in json.loads((ROOT / "benchmarks" / "results" / "metrics_lie.json").read_text("utf-8"))
}
COLUMNS = ("score", "published_score", "lpips_diversity", "clip_consistency", "identity")
ROWS = {
    "real": "metrics_real",
    "wrong captions": "metrics_wrong_captions",
    "upside down": "metrics_upside_down",
    "without colour": "metrics_grey",
    "pixels in another order (scrambled)": "metrics_scrambled",
    "one picture, eight times": "metrics_copies",
    "their average, eight times": "metrics_average",
    "half noise": "metrics_noisy",
    "noise": "metrics_noise",
    "other characters": "metrics_others",
}


def row(shown: str) -> str:
    """A row of the table as the results have it."""
    note = RESULTS[ROWS[shown]]["note"]
    cells = [re.search(rf"\b{name} (-?[\d.]+ \([^)]*\))", note) for name in COLUMNS]
    return f"| {shown} | " + " | ".join(cell[1] if cell else "" for cell in cells) + " |"


@pytest.mark.parametrize("shown", ROWS)
def test_each_row_is_what_was_measured(shown: str) -> None:
    assert row(shown) in PAGE


def test_every_kind_of_picture_that_was_measured_is_shown() -> None:
    kinds = {name for name, one in RESULTS.items() if one["unit"].startswith("score")}
    assert set(ROWS.values()) == kinds


def test_numbers_in_sentences_are_those_that_were_measured() -> None:
    assert f"has F1 {RESULTS['metrics_all_yes']['measured']:.3f}" in PAGE
    assert f"measure {RESULTS['metrics_worst_of_equal_groups']['measured']:.1%}" in PAGE
    shares = [RESULTS[f"metrics_importance_of_nothing_{trials}"]["measured"] for trials in (10, 20, 50)]
    assert "a share of {:.2f} after 10 trials, {:.2f} after 20 and {:.2f} after 50".format(*shares) in PAGE
    bright = re.search(r"brightness_mean ([\d.]+) ", RESULTS["metrics_real"]["note"])
    assert bright and f"a brightness of {bright[1]}" in PAGE


def test_what_the_page_concludes_from_the_table_is_so() -> None:
    def of(kind: str, name: str) -> float:
        found = re.search(rf"\b{name} (-?[\d.]+) ", RESULTS[f"metrics_{kind}"]["note"])
        assert found is not None
        return float(found[1])

    kinds = [name.removeprefix("metrics_") for name, one in RESULTS.items() if one["unit"].startswith("score")]
    assert min(kinds, key=lambda kind: of(kind, "score")) == "scrambled"
    assert min(kinds, key=lambda kind: of(kind, "published_score")) == "noise"
    assert of("copies", "style_term") < of("real", "style_term") == of("scrambled", "style_term")
    assert of("others", "lpips_diversity") > of("noise", "lpips_diversity") > of("real", "lpips_diversity")
    assert of("copies", "identity") > of("real", "identity") > 2 * of("scrambled", "identity")
    assert all(of(kind, "failures") == 0 for kind in kinds)


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            *diffusion_lora.METRICS,
            *llm_lora.METRICS,
            *two_stage.METRICS,
            *classifier.METRICS,
            *classifier.MODALITY_METRICS,
            *CLOCK,
            *("preference", "improvement_percent"),
        }
    ),
)
def test_every_metric_is_named(name: str) -> None:
    assert re.search(rf"`{name}`|^## .*\b{name}\b|^## {name}$", PAGE, re.MULTILINE | re.IGNORECASE)


def test_each_metric_says_how_it_lies() -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
    told = [title for title in sections if "say of pictures" not in title and not title.startswith("train_loss")]
    assert len(told) >= 15
    for title in told:
        assert re.search(r"\b(lie|lies)\b", sections[title]), title
