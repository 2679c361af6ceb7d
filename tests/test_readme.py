"""The README is short, in order, and quotes what was measured; links of all pages lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import PAGES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in plain}


def test_it_shows_the_two_commands_and_fits_in_a_few_screens() -> None:
    lines = TEXT.splitlines()
    assert "make demo" in lines and "make test" in lines
    assert len(lines) < 150


def test_a_newcomer_meets_things_in_this_order() -> None:
    order = ["## Why", "## 60 seconds", "## On your own GPU, overnight", "## On a cluster", "## Further"]
    places = [TEXT.index(f"\n{heading}\n") for heading in order]
    assert places == sorted(places)
    assert len(re.findall(r"^!\[", TEXT, re.MULTILINE)) == 1 and TEXT.index("![") < places[0]


QUOTED = {
    "lora_learns_val_loss": "by {:.0f} spreads",
    "lora_learns_identity": "and {:.1f} of the likeness",
    "verify_picks_best": "best {:.2f} times as often",
    "verify_coverage_recommended": "{:.0%} to",
    "verify_coverage_recommended_highest": "to {:.1%} hold the truth",
    "search_wall_share": "needs {:.0%} of the wall time",
    "driver_1000_ratio": "`driver_1000_ratio`, {:.2f}",
    "packed_vs_processes": "two packs train {:.2f} times",
}
"""Figures that the README quotes, and the words around them."""


@pytest.mark.parametrize("name", QUOTED)
def test_figures_that_it_quotes_are_those_that_were_measured(name: str) -> None:
    files = (ROOT / "benchmarks" / "results").glob("*.json")
    every = [one for file in files if ".quick." not in file.name for one in json.loads(file.read_text("utf-8"))]
    (measured,) = [one["measured"] for one in every if one["name"] == name]
    assert QUOTED[name].format(measured) in TEXT


def test_faults_and_trees_are_as_it_says() -> None:
    def of(file: str, name: str) -> dict[str, Any]:
        results = json.loads((ROOT / "benchmarks" / "results" / f"{file}.json").read_text("utf-8"))
        return next(one for one in results if one["name"] == name)

    lost = of("faults_lost", "faults_lost")
    assert (lost["measured"], lost["runs"], lost["note"].count(" lost, 0 doubled, 0 hung")) == (0, 200, 10)
    assert abs(of("chi_vs_forest", "chi_vs_forest")["measured"]) < 0.01


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.resolve().relative_to(ROOT)), f"{page}: {link}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    links = {((ROOT / "docs") / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)\s]+)\)", index)}
    missing = [page for page in PAGES if (ROOT / page).resolve() not in links and page.name != "index.md"]
    assert not missing
