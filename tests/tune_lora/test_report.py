"""The report is one file that needs nothing else, says what must be said, and cannot be made to run anything."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainables.protocol import Cause
from tune_lora import figures, report
from tune_lora.report._data import as_json, data
from tune_lora.report._page import programs
from tune_lora.report._pictures import FIGURE, THUMBNAIL, Picture, embedded
from tune_lora.report._thumbnails import thumbnails
from tune_lora.store import StudyRecord, TrialRecord

EVIL = """<script>alert("x")</script>'" onload='alert(1)'><img src=https://evil.example/x.png>{{ 7 * 7 }}"""


def without_programs(html: str) -> str:
    """The page without the scripts that are ours, each of them once, and without its data."""
    ours = programs()
    for script in (ours.first, ours.library, ours.own):
        assert html.count(f"<script>{script}</script>") == 1
        html = html.replace(f"<script>{script}</script>", "")
    before, _, rest = html.partition('<script type="application/json" id="data">')
    assert rest.count("</script>") == 1, "nothing in the data ends its element"
    return before + rest.partition("</script>")[2]


class Page(HTMLParser):
    """Tags with their attributes, and the text between them, as a reader without JavaScript has them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        html = without_programs(html) if "</html>" in html else html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def sources(self) -> list[str]:
        return [attributes["src"] or "" for _, attributes in self.tags if "src" in attributes]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def html(example: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reported") / "glow"
    shutil.copytree(example.folder, folder)
    figures.draw_all(example.record, example.study, folder / "figures")
    path = report.write(example.record, folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_it_needs_no_network_and_runs_nothing(html: str, page: Page) -> None:
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    plain = without_programs(html)
    assert "http://" not in plain
    assert "https://" not in plain
    assert "url(" not in plain


def test_only_our_programs_may_run(page: Page) -> None:
    policies = [tag["content"] or "" for _, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policies[0].split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data: blob:"
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in vars(programs()).values()]
    assert rules["script-src"] == " ".join(f"'sha256-{one}'" for one in hashes) and len(hashes) == 3


def test_embedded_images_are_real_and_bounded(html: str, page: Page) -> None:
    sizes = []
    for source in page.sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            sizes.append(max(image.size))
    assert max(sizes) <= FIGURE
    small = [size for size in sizes if size <= THUMBNAIL]
    assert len(sizes) - len(small) == len(figures.KINDS)
    assert len(small) == 2 * 4 + report.TOP_WITH_IMAGES * 4, "base and winner, then the top trials"
    assert len(html) < 3_000_000


def test_data_is_the_study_and_nothing_that_html_reads(html: str, example: Any) -> None:
    text = html.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(text)
    found = json.loads(text)
    assert [one["n"] for one in found["trials"]] == [one.number for one in example.record.trials]
    assert found["winner"] == example.record.best.number
    assert found["ranked"] == [one.number for one in example.record.ranked()]
    by_number = {one["n"]: one for one in found["trials"]}
    for trial in example.record.trials:
        assert by_number[trial.number]["curve"]["x"] == sorted(trial.curve)
        assert set(by_number[trial.number]["params"]) == set(example.record.tried(trial))
        assert by_number[trial.number]["values"] == [trial.value and pytest.approx(trial.value, rel=1e-5)]


def test_numbers_that_json_does_not_have_are_gaps(tmp_path: Path) -> None:
    trial = TrialRecord(0, "complete", 0.5, {"a": float("inf")}, {"a": float("inf")}, metrics={"b": float("nan")})
    found = data(StudyRecord("s", "minimize", (trial,)), tmp_path)
    assert found["trials"][0]["params"] == {"a": None} and found["trials"][0]["metrics"] == {"b": None}
    json.loads(as_json(found))


@given(st.text())
def test_no_text_leaves_the_data(text: str) -> None:
    written = as_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert written.isascii() and not set("<>&") & set(written)


def test_thumbnails_keep_to_their_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    trials = []
    for number in range(20):
        paths = {}
        for budget in (1, 2, 3):
            paths[budget] = {"all": f"{number}-{budget}.png"}
            pixels = noise.integers(0, 255, (300, 300, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / paths[budget]["all"])
        trials.append(TrialRecord(number, "complete", 0.1 * number, {}, {}, images=paths))
    record = StudyRecord("s", "minimize", tuple(trials))
    whole = thumbnails(record, tmp_path)
    assert len(whole) == 20 and len(whole[0]) == 3 and len(whole[19]) == 1
    monkeypatch.setattr("tune_lora.report._thumbnails.BYTES", 400_000)
    some = thumbnails(record, tmp_path)
    assert 0 < len(some) < 20 and list(some) == list(range(len(some))), "the best come first"
    assert sum(len(one["uri"]) for row in some.values() for one in row) <= 400_000


def test_light_and_dark(html: str) -> None:
    assert "prefers-color-scheme: dark" in html


def test_the_winner_stands_with_its_caveats(page: Page, example: Any) -> None:
    best = example.record.best
    assert f"trial {best.number} not verified" in page.words
    assert f"{best.value:.4g} uncalibrated" in page.words
    assert "the miniature CLIP measures likeness" in page.words
    config = best.config
    assert f"{config['network_alpha']} (ratio {config['network_alpha'] / config['network_dim']:.3f})" in page.words


def test_alpha_is_printed_with_its_ratio(page: Page) -> None:
    assert re.search(r"network_alpha\s+96 \(ratio 0\.750\)", page.words)


def test_every_trial_is_listed_with_its_state_and_cause(html: str, example: Any) -> None:
    table = Page(html[html.index("<h2>All trials</h2>") :].split("</table>", maxsplit=1)[0])
    assert sum(tag == "tr" for tag, _ in table.tags) == 1 + len(example.record.trials)
    assert "nan loss: loss became NaN at epoch 3" in table.words
    assert "out of memory: asked for 1.2 GiB, 0.4 GiB free" in table.words
    assert "from prior:trial_3_5" in table.words


def test_rules_past_trials_stop_reason_and_next_steps(page: Page) -> None:
    assert "high_dim_few_epochs 9" in page.words
    assert "generic: low likeness to the character" in page.words
    assert "32 (ratio 0.125)" in page.words
    assert "24 trials were asked for" in page.words
    assert "tune-lora resume" in page.words


def test_commands_among_the_findings_are_set_as_such(html: str) -> None:
    findings = html.split('<section id="findings">')[1].split("</section>", maxsplit=1)[0]
    assert "<code>tune-lora verify " in findings and "`" not in findings


def test_base_and_winner_are_compared(page: Page) -> None:
    assert "better than the untrained base (0.31)" in page.words
    assert page.words.index("Untrained base") < page.words.index("Winner, trial")


def test_a_verified_calibrated_study_says_neither(example: Any) -> None:
    record = example.record
    settled = dataclasses.replace(record, calibration={"calibrated": True}, verification={"trial": record.best.number})
    words = Page(report.render(settled, example.folder)).words
    assert "not verified" not in words
    assert "uncalibrated" not in words
    assert "verified with other seeds and prompts" in words


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    trial = TrialRecord(
        number=0,
        state="complete",
        value=0.5,
        params={EVIL: EVIL},
        config={EVIL: EVIL},
        provenance=EVIL,
        message=EVIL,
        cause=Cause.PRUNED,
        metrics={EVIL: 1.0},
        history={1: {EVIL: 1.0}},
        images={1: {EVIL: EVIL}},
    )
    record = StudyRecord(
        name=EVIL,
        direction="minimize",
        trials=(trial, dataclasses.replace(trial, number=1, state="failed", value=None)),
        rejections={EVIL: 1},
        stop_reason=EVIL,
        baseline={EVIL: 1.0, "score": 1.0},
        base_images={EVIL: EVIL},
        calibration={"calibrated": False, "notes": [EVIL], "targets": {EVIL: EVIL}},
        spec={"space": EVIL},
    )
    html = report.render(record, tmp_path)
    page = Page(html)
    assert {tag for tag, _ in page.tags} >= {"html", "table"}
    assert "script" not in {tag for tag, _ in page.tags}, "those that are ours are taken out"
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.sources == []
    assert "{{ 7 * 7 }}" in page.text
    assert "<script>alert" in page.text


def test_images_outside_the_folder_are_not_embedded(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    folder = tmp_path / "study"
    folder.mkdir()
    images = {"up": "../secret.png", "absolute": str(tmp_path / "secret.png")}
    record = StudyRecord("s", "minimize", (TrialRecord(0, "complete", 0.5, {}, {}, images={1: images}),))
    page = Page(report.render(record, folder))
    assert page.sources == []
    assert page.words.count("no image") == 2


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_broken_image_is_a_gap(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    assert embedded(path, "eyes", 64) == Picture("eyes")


def test_a_study_without_trials_still_has_a_report(tmp_path: Path) -> None:
    page = Page(report.render(StudyRecord("empty", "minimize", ()), tmp_path))
    assert "No winner yet" in page.words
    assert "No trial was started" in page.words
    assert "not verified" not in page.words


def test_targets_are_told_in_few_digits(tmp_path: Path) -> None:
    measured = {"calibrated": False, "targets": {"brightness": 0.7630447781542765}}
    record = StudyRecord("s", "minimize", (TrialRecord(0, "complete", 0.5, {}, {}),), calibration=measured)
    text = Page(report.render(record, tmp_path)).text
    assert "0.763" in text and "0.7630447781542765" not in text
