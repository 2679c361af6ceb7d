"""`tune-lora rate` as a rater meets it: the real program, its page in a real Chromium, and who is kept out."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from PIL import Image

from tests import chromium
from tests.tune_lora import rated
from trainables.lora.sheet import write_image_grid
from tune_lora import preferences, rate, rating, store
from tune_lora.errors import InputError
from tune_lora.rating import _pictures
from tune_lora.ratings import Ratings

READY = "!busy && state !== null"
N = 5


@dataclass
class Program:
    """A running `tune-lora rate`."""

    process: subprocess.Popen[str]
    address: str

    @property
    def origin(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    def end(self, how: int = signal.SIGINT) -> str:
        """Ends it as ctrl-C does; what it printed since it began to serve."""
        self.process.send_signal(how)
        printed, _ = self.process.communicate(timeout=chromium.DEADLINE_SECONDS)
        return printed


@contextmanager
def program(folder: Path, *arguments: str) -> Iterator[Program]:
    """`tune-lora rate` of a results folder, serving."""
    command = [sys.executable, "-m", "tune_lora.cli", "rate", str(folder), "--rater", "anna", *arguments]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        preexec_fn=chromium.end_with_parent,  # noqa: PLW1509 - one call into libc, which takes no lock
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[1].startswith("http://127.0.0.1:"), "".join(lines) + process.stdout.read()
        yield Program(process, lines[1].strip())
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rated.study(tmp_path_factory.mktemp("results") / "milo", N)


@pytest.fixture
def folder(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "milo"))


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    with chromium.started() as running:
        yield running


class TestPage:
    def test_clicks_and_keys_are_answers(self, folder: Path, browser: chromium.Browser, tmp_path: Path) -> None:
        held, page = Ratings(folder), browser.page()
        with program(folder, "--pairs", "6") as running:
            page.screen(1280, 800)
            page.open(running.address)
            page.wait_for(READY)
            assert page.js("document.getElementById('count').textContent") == "0 of 6 pairs, 6 left · anna"
            page.screenshot(tmp_path / "page.png")
            acts = [
                ("left", lambda: page.press("ArrowLeft")),
                ("right", lambda: page.press("ArrowRight")),
                ("tie", lambda: page.press("ArrowDown")),
                ("left", lambda: page.click("#left")),
                ("right", lambda: page.click("#b")),
            ]
            for done, (choice, act) in enumerate(acts, start=1):
                act()
                page.wait_for(f"{READY} && state.done === {done}")
                assert [one.choice for one in held.judgements()][-1] == choice, "it is on the disk before it is shown"
            page.press("u")
            page.wait_for(f"{READY} && state.done === 4")
            assert len(held.judgements()) == 4
            page.click("#finish")
            page.wait_for("document.getElementById('keys').hidden")
            assert "4 pairs are judged and saved" in page.js("document.body.innerText")
            printed, _ = running.process.communicate(timeout=chromium.DEADLINE_SECONDS)
        assert running.process.returncode == 0
        assert page.errors == []
        assert "rated: 4 pairs" in printed and "people and the score: too few to say" in printed
        found = preferences.of(store.load(folder))
        assert found is not None and found.judgements == 4

    @pytest.mark.slow
    def test_a_page_that_is_loaded_again_goes_on(self, folder: Path, browser: chromium.Browser) -> None:
        page = browser.page()
        with program(folder) as running:
            page.open(running.address)
            page.wait_for(READY)
            page.press("ArrowLeft")
            page.wait_for(f"{READY} && state.done === 1")
            shown = page.js("state.pair")
            page.reload()
            page.wait_for(READY)
            assert page.js("state.done") == 1 and page.js("state.pair") == shown
            running.end(signal.SIGKILL)
        with program(folder) as running:
            page.open(running.address)
            page.wait_for(READY)
            assert page.js("state.done") == 1
            again = running.end()
        assert running.process.returncode == 0 and "rated: 1 pair of 2 trials by 1 rater (anna)" in again
        assert page.errors == []

    @pytest.mark.slow
    def test_undo_shows_the_same_pair_on_the_same_sides(self, folder: Path, browser: chromium.Browser) -> None:
        page = browser.page()
        with program(folder) as running:
            page.open(running.address)
            page.wait_for(READY)
            before = page.js(_PIXELS)
            page.press("ArrowLeft")
            page.wait_for(f"{READY} && state.done === 1")
            page.press("u")
            page.wait_for(f"{READY} && state.done === 0")
            assert page.js(_PIXELS) == before
            assert page.js("document.getElementById('undo').disabled") is True

    @pytest.mark.slow
    def test_a_key_that_is_held_down_is_one_answer(self, folder: Path, browser: chromium.Browser) -> None:
        page = browser.page()
        with program(folder) as running:
            page.open(running.address)
            page.wait_for(READY)
            page.press("ArrowRight", held=8)
            page.wait_for(f"{READY} && state.done === 1")
            page.press("x")
            page.press("Tab")
            assert page.js("state.done") == 1
        assert len(Ratings(folder).judgements()) == 1

    @pytest.mark.slow
    def test_nothing_says_whose_pictures_they_are(self, folder: Path, browser: chromium.Browser) -> None:
        page = browser.page()
        with program(folder) as running:
            page.open(running.address)
            page.wait_for(READY)
            told = page.js("document.documentElement.outerHTML + JSON.stringify(state)")
            assert not re.search(r"trial|epoch|\.png|identity|milo", told)
            name = page.js("state.pair.left[0]")
            picture = requests.get(f"{running.address}picture/{name}", timeout=60)
        shown = Image.open(io.BytesIO(picture.content))
        assert shown.info == {} and shown.height < 300
        assert b"trial" not in picture.content

    @pytest.mark.slow
    def test_when_all_is_judged_it_says_so_and_offers_more(self, folder: Path, browser: chromium.Browser) -> None:
        page = browser.page()
        with program(folder, "--pairs", "1") as running:
            page.open(running.address)
            page.wait_for(READY)
            page.press("ArrowUp")
            page.wait_for(f"{READY} && state.pair === null")
            assert "All pairs are judged" in page.js("document.body.innerText")
            page.click("#more")
            page.wait_for(f"{READY} && state.pair !== null")
            assert page.js("state.total") == 1 + N
        assert page.errors == []

    @pytest.mark.slow
    def test_an_answer_that_is_not_saved_is_said_to_be_not(self, folder: Path, browser: chromium.Browser) -> None:
        page = browser.page()
        with program(folder) as running:
            page.open(running.address)
            page.wait_for(READY)
            running.end()
            page.press("ArrowLeft")
            page.wait_for("!document.getElementById('problem').hidden")
            assert "this was not saved" in page.js("document.getElementById('problem').textContent")
            assert page.js("state.done") == 0
        assert Ratings(folder).judgements() == []

    @pytest.mark.slow
    @pytest.mark.parametrize("dark", [False, True])
    def test_it_fits_a_phone(self, folder: Path, browser: chromium.Browser, tmp_path: Path, dark: bool) -> None:
        page = browser.page()
        with program(folder) as running:
            page.screen(**chromium.PHONE)
            page.dark(dark)
            page.open(running.address)
            page.wait_for(READY)
            page.screenshot(tmp_path / "phone.png")
            assert page.js("document.documentElement.scrollWidth <= 390 && document.body.scrollHeight <= 844")
            boxes = page.js(
                "['left', 'right', 'a', 'tie', 'b', 'undo'].map(id => at(id).getBoundingClientRect().toJSON())"
            )
            assert all(box["height"] >= 44 and box["bottom"] <= 844 for box in boxes)
            paper = page.js("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", paper))) < 200) is dark


_PIXELS = """(() => [...document.images].map(image => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL(); }))()"""


class TestDoors:
    """What is refused. No browser is needed to ask."""

    @pytest.fixture(scope="class")
    def running(self, study: Path) -> Iterator[Program]:
        with program(study) as serving:
            yield serving

    def test_without_the_token_there_is_nothing(self, running: Program) -> None:
        wrong = running.address[:-3] + ("AA/" if running.address[-3:-1] != "AA" else "BB/")
        for address in (running.origin, f"{running.origin}/", f"{running.origin}/state", wrong, f"{wrong}state"):
            answer = requests.get(address, timeout=60)
            assert answer.status_code == 403 and answer.text == "refused\n"
        assert requests.post(f"{wrong}judge", json={}, timeout=60).status_code == 403
        assert requests.get(f"{running.origin}/%ff%fe/state", timeout=60).status_code == 403

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]:1", "10.0.0.1"]
    )
    def test_another_host_is_refused(self, running: Program, host: str) -> None:
        assert requests.get(running.address, headers={"Host": host}, timeout=60).status_code in (400, 403)

    @pytest.mark.parametrize("host", ["127.0.0.1:9999", "localhost", "localhost:8000", "[::1]:80"])
    def test_the_near_end_of_a_tunnel_is_let_in(self, running: Program, host: str) -> None:
        assert requests.get(running.address, headers={"Host": host}, timeout=60).status_code == 200

    def test_another_site_s_page_is_refused(self, running: Program) -> None:
        for origin in ("http://evil.example", "null", "https://127.0.0.1"):
            answer = requests.post(f"{running.address}judge", json={}, headers={"Origin": origin}, timeout=60)
            assert answer.status_code == 403
        assert requests.options(running.address, headers={"Origin": running.origin}, timeout=60).status_code == 405

    def test_headers_keep_everything_to_itself(self, running: Program) -> None:
        for address in (running.address, f"{running.address}state", f"{running.origin}/nothing"):
            headers = requests.get(address, timeout=60).headers
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store" and headers["X-Frame-Options"] == "DENY"
            assert not [name for name in headers if name.lower().startswith("access-control")]

    @pytest.mark.parametrize(
        "path",
        ["picture/../page.js", "picture/..%2f..%2fstudy.db", "../../etc/passwd", "picture/%00", "page.py", "study.db"],
    )
    def test_no_path_leads_out(self, running: Program, path: str) -> None:
        parts = urlsplit(running.address)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as line:
            request = f"GET {parts.path}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
            line.sendall(request.encode())
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.split(b" ")[1] in (b"400", b"403", b"404")
        assert b"SQLite" not in answer and b"root:" not in answer

    @pytest.mark.parametrize(
        ("body", "kind", "status"),
        [
            *(("{", "application/json", 400), ("[]", "application/json", 400), ("x" * 9999, "application/json", 413)),
            *(('{"pair": 1, "choice": "left"}', "application/json", 400), ("{}", "text/plain", 415)),
            *(('{"pair": "a", "choice": "both"}', "application/json", 400), ("[" * 4000, "application/json", 400)),
            ('{"pair": "ä", "choice": "left"}', "application/json", 409),
        ],
    )
    def test_what_is_no_answer_changes_nothing(
        self, running: Program, study: Path, body: str, kind: str, status: int
    ) -> None:
        headers = {"Content-Type": kind}
        answer = requests.post(f"{running.address}judge", data=body.encode(), headers=headers, timeout=60)
        assert answer.status_code == status
        assert not (study / "ratings.jsonl").exists()

    @pytest.mark.slow
    def test_an_answer_that_is_sent_twice_counts_once(self, folder: Path) -> None:
        with program(folder) as running:
            said = {"pair": requests.get(f"{running.address}state", timeout=60).json()["pair"]["id"], "choice": "left"}
            first, second = (requests.post(f"{running.address}judge", json=said, timeout=60) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 409)
        assert second.json()["pair"] == first.json()["pair"]
        assert len(Ratings(folder).judgements()) == 1

    def test_it_listens_on_loopback_only(self, running: Program) -> None:
        port = urlsplit(running.address).port
        listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
        mine = [line.split()[1] for line in listening if line.split()[1].endswith(f":{port:04X}") and " 0A " in line]
        assert mine == [f"0100007F:{port:04X}"]


class TestPictures:
    def test_pictures_from_outside_of_the_trials_are_not_shown(self, folder: Path, tmp_path: Path) -> None:
        secret = write_image_grid(tmp_path / "secret.png", np.zeros((1, 8, 8, 3), np.uint8), title="secret")
        (folder / "trials" / "link.png").symlink_to(secret)
        (folder / "base").mkdir()
        shutil.copy(secret, folder / "base" / "base.png")
        trial = store.load(folder).trials[0]
        for named in (
            "../secret.png",
            str(secret),
            "trials/link.png",
            "base/base.png",
            "trials/../../secret.png",
            "\0",
        ):
            object.__setattr__(trial, "images", {4: {"a": named}})
            assert _pictures.newest(trial, folder) == ()

    def test_the_heading_is_gone_and_the_pictures_are_whole(self, folder: Path) -> None:
        sheet = folder / "trials" / "3" / "images" / "epoch_004.png"
        given, shown = (
            Image.open(sheet).convert("RGB"),
            Image.open(io.BytesIO(_pictures.shown(sheet, is_sheet=True) or b"")),
        )
        assert np.asarray(shown)[:10].min() == 255, "nothing is left of the heading"
        assert np.array_equal(np.asarray(shown)[10:], np.asarray(given)[given.height - shown.height + 10 :])

    def test_a_trial_with_a_broken_picture_is_left_out(self, folder: Path) -> None:
        (folder / "trials" / "2" / "images" / "epoch_004.png").write_bytes(b"no picture")
        found = rating.candidates(store.load(folder), folder, 10)
        assert [one.number for one in found] == [0, 1, 3, 4]

    def test_the_best_are_compared(self, folder: Path) -> None:
        assert [one.number for one in rating.candidates(store.load(folder), folder, 3)] == [0, 1, 2]


class TestMistakes:
    def test_a_study_without_pictures_is_one_line(self, folder: Path) -> None:
        shutil.rmtree(folder / "trials")
        with pytest.raises(InputError, match=r"0 completed trials have pictures in .*trials; must be two or more"):
            rate.session(folder)

    def test_names_and_questions_are_checked(self, folder: Path) -> None:
        with pytest.raises(InputError, match="--rater"):
            rate.session(folder, rater="a/b")
        with pytest.raises(InputError, match="--question"):
            rate.session(folder, question=" ")

    def test_a_broken_file_is_said_before_anything_is_served(self, folder: Path) -> None:
        (folder / "ratings.jsonl").write_text("{}\n")
        with pytest.raises(InputError, match=r"ratings\.jsonl:1: is no judgement"):
            rate.session(folder)

    def test_a_port_that_is_taken_is_one_line(self, folder: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            command = [sys.executable, "-m", "tune_lora.cli", "rate", str(folder), "--port", str(port)]
            ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"error: --port: {port} cannot be had") and ended.stderr.count("\n") == 1


def test_two_raters_at_once_lose_nothing(folder: Path) -> None:
    """Two sessions on one file, in turns and at the same time; each sees its own progress and both learn of all."""
    anna, ben = (rate.session(folder, rater=name, n_pairs=8)[0] for name in ("anna", "ben"))

    def judge(session: rating.Session) -> None:
        while (pair := session.state()["pair"]) is not None:
            assert session.judge(pair["id"], "left")

    threads = [threading.Thread(target=judge, args=(session,)) for session in (anna, ben)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert anna.state()["done"] == ben.state()["done"] == 8
    said = Ratings(folder).judgements()
    assert sorted(one.rater for one in said) == ["anna"] * 8 + ["ben"] * 8
    lines = (folder / "ratings.jsonl").read_text("utf-8").splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == 16
