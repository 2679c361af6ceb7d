"""The report in a real browser, without a network: figures, table, trial pages, phone, keyboard, hostile text."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import chromium
from trainables.protocol import Cause
from tune_lora import report
from tune_lora.records import Objective, StudyRecord, TrialRecord

EVIL = (
    "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>\"'\u2028&lt;b&gt; "
    "<a href=javascript:window.hit=1>x</a>%{y}{{7*7}}"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    with chromium.started() as started:
        yield started


@pytest.fixture
def page(browser: chromium.Browser) -> Iterator[chromium.Page]:
    made = browser.page()
    made.screen(1280, 900)
    made.offline()
    yield made
    assert made.errors == []
    browser.close()


@pytest.fixture(scope="module")
def written(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.render(example.record, example.folder), encoding="utf-8")
    return path


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return Path(os.environ.get("ARTIFACTS", tmp_path))


def opened(page: chromium.Page, path: Path, part: str = "") -> None:
    page.open(path.as_uri() + part)
    page.wait_for("document.documentElement.dataset.ready === 'yes'")


def page_of(record: StudyRecord, folder: Path) -> Path:
    return report.write(record, folder)


def draw_every_figure(page: chromium.Page) -> list[str]:
    kinds: list[str] = page.js("[...document.querySelectorAll('.plot[data-plot]')].map((one) => one.dataset.plot)")
    for kind in kinds:
        place = f"document.querySelector('[data-plot={kind}]')"
        page.js(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        page.wait_for(f"!!{place}.querySelector('.draw.empty, .draw .main-svg')")
    return kinds


def shown_trials(page: chromium.Page) -> list[int]:
    found: list[int] = page.js("[...document.querySelectorAll('#rows tbody a')].map((one) => Number(one.textContent))")
    return found


def press_enter(page: chromium.Page) -> None:
    """As a keyboard does it: a button is pressed by the character, not by the key."""
    page.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.send("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)


def head(title: str) -> str:
    return f"[...document.querySelectorAll('#rows th button')].find((one) => one.textContent === '{title}')"


def write_into(page: chromium.Page, selector: str, text: str) -> None:
    page.js(f"document.querySelector('{selector}').focus(); document.querySelector('{selector}').select()")
    page.send("Input.insertText", text=text)


def test_figures_are_drawn_with_their_points(page: chromium.Page, written: Path, example: Any, artifacts: Path) -> None:
    opened(page, written)
    page.screenshot(artifacts / "report-light.png")
    assert len(draw_every_figure(page)) == 8
    done = example.record.count("complete")
    points = "document.querySelector('[data-plot=history]').querySelectorAll('.points path').length"
    assert page.js(points) == done + 1, "each completed trial, and the winner's star"
    lines = "document.querySelectorAll('[data-plot={}] path.js-line').length"
    assert page.js(lines.format("curves")) > 1 and page.js(lines.format("parallel")) > 1
    assert "from 10 completed trials" in page.js("document.querySelector('[data-plot=importances]').innerText")
    for kind in ("survival", "failures"):
        assert page.js(f"document.querySelectorAll('[data-plot={kind}] .bars path').length") > 1
    page.js("document.querySelector('[data-plot=history]').scrollIntoView({block: 'center'})")
    page.screenshot(artifacts / "report-figures.png")


def test_a_figure_zooms_where_it_is_dragged(page: chromium.Page, written: Path) -> None:
    opened(page, written)
    draw_every_figure(page)
    place = "document.querySelector('[data-plot=history] .draw')"
    page.js(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    width = f"{place}._fullLayout.xaxis.range[1] - {place}._fullLayout.xaxis.range[0]"
    box, before = page.js(f"{place}.querySelector('.nsewdrag').getBoundingClientRect().toJSON()"), page.js(width)
    corners = [(box["x"] + box["width"] * at, box["y"] + box["height"] * at) for at in (0.25, 0.5, 0.75)]
    for kind, (x, y) in zip(("mousePressed", "mouseMoved", "mouseReleased"), corners, strict=True):
        page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    page.wait_for(f"({width}) < {before} * 0.7")


def test_the_table_sorts_by_keyboard(page: chromium.Page, written: Path, example: Any) -> None:
    opened(page, written)
    assert shown_trials(page) == [trial.number for trial in example.record.trials]
    page.js(head("score") + ".focus()")
    press_enter(page)
    ranked = [trial.number for trial in example.record.ranked()]
    assert shown_trials(page)[: len(ranked)] == ranked, "and those without a score stand last"
    assert page.js(head("score") + ".closest('th').ariaSort") == "ascending"
    page.press(" ")
    worths = {trial.number: trial.value for trial in ranked_trials(example)}
    values = [worths[number] or 0.0 for number in shown_trials(page)[: len(ranked)]]
    assert values == sorted(values, reverse=True)
    assert page.js(head("score") + ".closest('th').ariaSort") == "descending"
    assert page.js("document.querySelectorAll('#rows th[aria-sort=none]').length") > 5


def ranked_trials(example: Any) -> list[TrialRecord]:
    found: list[TrialRecord] = example.record.ranked()
    return found


def test_the_table_filters_by_words_numbers_state_and_cause(page: chromium.Page, written: Path, example: Any) -> None:
    opened(page, written)
    trials = example.record.trials
    write_into(page, "#find", "became nan")
    assert shown_trials(page) == [trial.number for trial in trials if "became NaN" in trial.message]
    write_into(page, "#find", "learning_rate>9e-5 network_dim=128")
    expected = [one.number for one in trials if one.config["learning_rate"] > 9e-5 and one.config["network_dim"] == 128]
    assert expected and shown_trials(page) == expected
    write_into(page, "#find", "nothing has this")
    assert shown_trials(page) == []
    assert page.js("document.getElementById('count').textContent") == f"0 of {len(trials)} trials"
    write_into(page, "#find", " ")
    for key, value in (("state", "pruned"), ("cause", "nan loss")):
        page.js(f"state.value = cause.value = ''; {key}.value = '{value}'; {key}.dispatchEvent(new Event('input'))")
        wanted = [one for one in trials if one.state == "pruned" or key == "cause"]
        wanted = [one for one in wanted if key == "state" or one.cause is Cause.NAN_LOSS]
        assert wanted and shown_trials(page) == [one.number for one in wanted]
    page.js("cause.value = ''; cause.dispatchEvent(new Event('input'))")
    page.click("#measured")
    measured = sorted({name for one in trials for name in one.metrics})
    page.wait_for(f"!!{head(measured[-1])}")


def test_a_trial_has_a_page_of_its_own(page: chromium.Page, written: Path, example: Any, artifacts: Path) -> None:
    best = example.record.best
    opened(page, written, f"#trial-{best.number}")
    text = page.js("document.getElementById('trial').innerText")
    assert f"Trial {best.number}" in text and "The recommended trial" in text
    assert f"{best.config['network_alpha']} (ratio" in text
    page.wait_for("!!document.querySelector('#curve .main-svg')")
    page.wait_for("[...document.querySelectorAll('#trial img')].some((one) => one.complete && one.naturalWidth > 0)")
    page.screenshot(artifacts / "report-trial.png", whole=True)
    page.js("location.hash = 'trial-5'")
    page.wait_for("document.activeElement.textContent === 'Trial 5'")
    assert "loss became NaN at epoch 3" in page.js("document.getElementById('trial').innerText")
    assert page.js("document.getElementById('overview').hidden")
    page.js("location.hash = 'trial-999'")
    page.wait_for("document.getElementById('trial').innerText.includes('no such trial')")


def test_back_from_a_trial_the_overview_is_where_it_was(page: chromium.Page, written: Path) -> None:
    opened(page, written)
    page.js("document.getElementById('trials').scrollIntoView({behavior: 'instant'})")
    page.js(head("score") + ".click(); document.querySelector('#rows tbody a').focus()")
    place = "document.getElementById('trials').getBoundingClientRect().top"
    before, order = page.js(place), shown_trials(page)
    page.press("Enter")
    page.wait_for("!document.getElementById('trial').hidden")
    page.js("history.back()")
    page.wait_for(f"document.getElementById('trial').hidden && Math.abs({place} - {before}) < 120")
    assert shown_trials(page) == order


def test_a_long_message_widens_no_column(page: chromium.Page, tmp_path: Path) -> None:
    trials = [
        TrialRecord(0, "failed", None, {}, {"rate": 1}, cause=Cause.GRADIENT_EXPLOSION, message="the loss rose " * 40),
        TrialRecord(1, "complete", 0.5, {f"option_{i}": i for i in range(12)}, {f"option_{i}": i for i in range(12)}),
    ]
    opened(page, page_of(StudyRecord("wide", "minimize", tuple(trials)), tmp_path))
    told = {one["name"]: one["width"] for one in page.js(
        "[...document.querySelectorAll('#rows th')].map((one) => ({name: one.textContent, width: one.offsetWidth}))"
    )}  # fmt: skip
    assert told["cause"] == 200
    assert 90 < told["option_11"] < 150


def test_nothing_moves_when_pictures_come_into_view(page: chromium.Page, written: Path) -> None:
    opened(page, written)
    tall = page.js("document.getElementById('overview').offsetHeight")
    images = page.js("document.querySelectorAll('#overview img').length")
    assert images > 0
    for at in range(images):
        page.js(f"document.querySelectorAll('#overview img')[{at}].scrollIntoView({{behavior: 'instant'}})")
        page.wait_for(f"document.querySelectorAll('#overview img')[{at}].complete")
    assert page.js("document.getElementById('overview').offsetHeight") == tall


def test_light_and_dark(page: chromium.Page, written: Path, artifacts: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    page.dark(False)
    opened(page, written)
    light = page.js(paper)
    page.dark()
    page.wait_for(f"{paper} !== '{light}'")
    dark = page.js(paper)
    page.wait_for("document.getElementById('theme').textContent === 'Light'")
    page.click("#theme")
    page.wait_for(f"{paper} === '{light}'")
    page.reload()
    assert page.js(paper) == light, "what was chosen stays"
    page.click("#theme")
    page.wait_for(f"{paper} === '{dark}'")
    page.js("document.getElementById('figures').scrollIntoView({behavior: 'instant'})")
    page.wait_for("!!document.querySelector('[data-plot=history] .main-svg')")
    page.screenshot(artifacts / "report-dark.png")
    page.js("localStorage.clear()")


def test_a_phone_scrolls_down_only(page: chromium.Page, written: Path, example: Any, artifacts: Path) -> None:
    page.screen(375, 812, scale=2, mobile=True)
    opened(page, written)
    draw_every_figure(page)
    assert page.js("document.documentElement.scrollWidth") == 375
    page.js("scrollTo(0, 0)")
    page.screenshot(artifacts / "report-phone.png")
    page.js(f"location.hash = 'trial-{example.record.best.number}'")
    page.wait_for("!!document.querySelector('#curve .main-svg')")
    assert page.js("document.documentElement.scrollWidth") == 375


def test_on_a_phone_a_wide_table_scrolls_and_no_word_is_cut_into_letters(page: chromium.Page, written: Path) -> None:
    page.screen(375, 812, scale=2, mobile=True)
    opened(page, written)
    narrow = page.js(
        "[...document.querySelectorAll('.wide td')].filter((one) => one.textContent.trim().length > 12)"
        ".filter((one) => one.offsetWidth < 60).map((one) => one.textContent)"
    )
    assert narrow == []
    assert page.js("document.documentElement.scrollWidth") == 375


def test_the_first_tab_leads_past_the_navigation_and_focus_is_seen(page: chromium.Page, written: Path) -> None:
    opened(page, written)
    page.press("Tab")
    assert page.js("document.activeElement.className") == "skip"
    assert page.js("document.activeElement.getBoundingClientRect().top") >= 0
    page.press("Enter")
    page.wait_for("document.activeElement.id === 'content'")
    page.js(head("score") + ".focus()")
    page.press("Tab")
    assert page.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_print_shows_all_rows_and_figures(page: chromium.Page, tmp_path: Path) -> None:
    opened(page, page_of(many(120), tmp_path))
    assert len(shown_trials(page)) < 120
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert len(shown_trials(page)) == 120
    assert page.js("document.querySelectorAll('.draw.empty, .draw.js-plotly-plot').length") == 8
    page.js("dispatchEvent(new Event('afterprint'))")
    assert len(shown_trials(page)) < 120


def many(n: int) -> StudyRecord:
    def one(number: int) -> TrialRecord:
        params = {"rate": 1e-5 * 1.01**number, "rank": number % 3}
        curve = {at: 1.0 / at + number / n for at in range(1, 6)}
        told = {at: {"score": value} for at, value in curve.items()}
        value = (number * 37 % n) / n
        return TrialRecord(
            number, "complete", value, params, params, metrics={"score": value}, curve=curve, history=told
        )

    return StudyRecord("many", "minimize", tuple(one(number) for number in range(n)))


def test_a_thousand_trials_are_a_window_of_rows(page: chromium.Page, tmp_path: Path) -> None:
    opened(page, page_of(many(1_000), tmp_path))
    assert len(shown_trials(page)) < 100
    page.js(head("score") + ".click()")
    best = [trial.number for trial in many(1_000).ranked()]
    assert shown_trials(page)[:30] == best[:30]
    page.js("document.getElementById('rows').scrollTop = 1e9")
    page.wait_for(f"document.querySelector('#rows tbody tr:last-child a')?.textContent === '{best[-1]}'")
    assert page.js("document.querySelector('#rows tbody tr:last-child').ariaRowIndex") == "1001"


def test_hostile_text_is_only_shown(page: chromium.Page, tmp_path: Path) -> None:
    def one(number: int, state: Any) -> TrialRecord:
        value = number / 10 if state == "complete" else None
        params = {EVIL: f"{EVIL}{number}", "__proto__": number, "constructor": number / 7}
        told = {at: {EVIL: number * at, "__proto__": 1.0} for at in (1, 2)}
        curve = {1: 0.5 + number, 2: 0.3}
        known: dict[str, Any] = {"provenance": EVIL, "notes": (EVIL,), "message": EVIL, "metrics": {EVIL: 1.0 * number}}
        cause = Cause.NAN_LOSS if state == "failed" else None
        images = {1: {EVIL: EVIL}}
        return TrialRecord(
            number, state, value, params, params, cause=cause, curve=curve, history=told, images=images, **known
        )

    trials = tuple(one(number, "failed" if number % 5 == 4 else "complete") for number in range(20))
    record = StudyRecord(
        EVIL, "minimize", trials, score_name=EVIL, stop_reason=EVIL, rejections={EVIL: 1},
        baseline={EVIL: 0.4}, base_images={EVIL: EVIL},
        calibration={"calibrated": False, "notes": [EVIL], "baseline": EVIL},
    )  # fmt: skip
    opened(page, page_of(record, tmp_path))
    draw_every_figure(page)
    page.js("for (const select of document.querySelectorAll('.plot select')) select.dispatchEvent(new Event('change'))")
    write_into(page, "#find", EVIL)
    page.js("location.hash = 'trial-4'")
    page.wait_for("!!document.querySelector('#trial h1')")
    assert "window.hit=1" in page.js("document.getElementById('trial').innerText")
    assert page.js("typeof window.hit") == "undefined"
    assert page.js("document.querySelectorAll('script').length") == 4, "none but ours"
    assert page.js("document.querySelectorAll('a[href^=javascript], img[onerror]').length") == 0
    assert page.js("typeof {}.n") == "undefined", "no name of theirs reached a prototype"


def test_several_objectives_and_an_empty_study_open(page: chromium.Page, tmp_path: Path) -> None:
    opened(page, page_of(StudyRecord("empty", "minimize", ()), tmp_path))
    draw_every_figure(page)
    assert "No trial was started" in page.js("document.body.innerText")
    both = tuple(
        dataclasses.replace(trial, value=None, values=(float(trial.value or 0), 1.0 - float(trial.value or 0)))
        for trial in many(20).trials
    )
    objectives = (Objective("loss"), Objective("likeness", "maximize"))
    opened(page, page_of(StudyRecord("two", "minimize", both, objectives=objectives), tmp_path))
    assert "front" in draw_every_figure(page)
    page.js("objective.value = 1; objective.dispatchEvent(new Event('change'))")
    title = "document.querySelector('[data-plot=history] .draw')._fullLayout.yaxis.title.text"
    assert page.js(title) == "likeness"


def test_times_of_packed_trials_are_said_to_be_shares(page: chromium.Page, tmp_path: Path, artifacts: Path) -> None:
    packed = tuple(dataclasses.replace(trial, seconds=60.0, pack=8) for trial in many(20).trials)
    opened(page, page_of(StudyRecord("packed", "minimize", packed), tmp_path))
    assert "a trial's own share of a base with 8 seats" in page.js("document.body.innerText")
    page.wait_for(f"!!{head('device time')}")
    assert "cost" in draw_every_figure(page)
    title = page.js("document.querySelector('[data-plot=cost] .draw')._fullLayout.xaxis.title.text")
    assert title == "hours of device time, all trials before included"
    page.screenshot(artifacts / "report-packed.png")
    page.js(f"location.hash = 'trial-{packed[0].number}'")
    page.wait_for("document.getElementById('trial').innerText.includes('its share of a pack of 8')")
    assert "Device time" in page.js("document.getElementById('trial').innerText")
    page.screenshot(artifacts / "report-packed-trial.png")
