"""`tune-lora dashboard`: optuna-dashboard with our notes and pictures; it changes nothing and lets nobody else in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from PIL import Image

from tests import chromium
from tests.tune_lora import rated
from trainables.protocol import Cause
from tune_lora import dashboard, store
from tune_lora.dashboard_storage import Looking, Pictures, ReadOnlyError
from tune_lora.errors import InputError

pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard; pip install 'tune-lora[dashboard]'")
TOKEN, PORT = "t0ken", 8123
COOKIE = f"tune-lora-{PORT}={TOKEN}"


class Asked:
    """A dashboard without a server: it is asked as a server asks it."""

    def __init__(self, folder: Path) -> None:
        self.study = store.load_study(folder)
        app = dashboard.application(self.study, folder)
        self.app = dashboard.guarded(app, TOKEN, self.study._study_id, PORT)

    def __call__(
        self,
        path: str,
        method: str = "GET",
        *,
        host: str = f"127.0.0.1:{PORT}",
        cookie: str = COOKIE,
        body: bytes = b"",
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        told: list[Any] = []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.partition("?")[0],
            "QUERY_STRING": path.partition("?")[2],
            "HTTP_HOST": host,
            "HTTP_COOKIE": cookie,
            "HTTP_ACCEPT_ENCODING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(PORT),
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.url_scheme": "http",
        }
        said = self.app(environ, lambda status, headers, *_: told.append((status, headers)))  # type: ignore[arg-type, return-value] # as much as is asked of it
        content = b"".join(said)
        status, headers = told[0]
        return int(status.split()[0]), dict(headers), content

    def json(self, path: str) -> Any:
        """What the dashboard's own interface says."""
        status, _, content = self(path)
        assert status == 200, content
        return json.loads(content)

    def detail(self) -> Any:
        return self.json(f"/api/studies/{self.study._study_id}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rated.study(tmp_path_factory.mktemp("results") / "milo", 3)


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "milo"))


@pytest.fixture
def asked(folder: Path) -> Asked:
    return Asked(folder)


def failed_trial(message: str) -> optuna.trial.FrozenTrial:
    attributes = {store.CAUSE: Cause.NAN_LOSS.value, store.MESSAGE: message}
    return create_trial(state=TrialState.FAIL, user_attrs=attributes)


class TestNotes:
    def test_a_trial_s_note_says_what_became_of_it(self, asked: Asked, folder: Path) -> None:
        note = asked.detail()["trials"][0]["note"]["body"]
        assert "**complete**" in note and "place 1 of 3" in note
        assert r"network\_alpha 6 \(ratio 0\.750\)" in note

    def test_a_checkpoint_is_named(self, folder: Path) -> None:
        (folder / "trials" / "1" / "checkpoint" / "00000004").mkdir(parents=True)
        note = Asked(folder).detail()["trials"][1]["note"]["body"]
        assert f"checkpoint: `{folder}/trials/1/checkpoint/00000004`" in note

    def test_a_failure_s_cause_is_said_and_its_message_is_text(self, folder: Path) -> None:
        hostile = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) `code` **bold**\n# heading"
        store.load_study(folder).add_trial(failed_trial(hostile))
        note = Asked(folder).detail()["trials"][3]["note"]["body"]
        assert r"cause: nan loss\: \<img" in note
        assert "<img" not in note.replace(r"\<img", "") and "](" not in note and "\n# " not in note

    def test_the_study_s_note_says_how_it_goes(self, asked: Asked, folder: Path) -> None:
        note = asked.detail()["note"]["body"]
        assert "3 trials" in note and r"not verified" in note and f"`{folder}`" in note

    def test_links_are_those_that_tracking_wrote(self, folder: Path) -> None:
        (folder / "wandb").mkdir()
        lines = [b'{"url": "https://wandb.ai/me/tune-lora/groups/milo"}', b"{", b"[]"]
        (folder / "wandb" / "tracked.jsonl").write_bytes(b"\n".join(lines))
        assert "[Weights & Biases](https://wandb.ai/me/tune-lora/groups/milo)" in Asked(folder).detail()["note"]["body"]

    @pytest.mark.parametrize(
        "url", ["javascript:alert(1)", "https://a) [b](javascript:x", "file:///etc/passwd", "https://"]
    )
    def test_what_is_no_web_address_is_no_link(self, folder: Path, url: str) -> None:
        (folder / "wandb").mkdir()
        (folder / "wandb" / "tracked.jsonl").write_text(json.dumps({"url": url}))
        assert "Weights & Biases" not in Asked(folder).detail()["note"]["body"]


class TestPictures:
    def test_pictures_of_trials_are_its_artifacts(self, asked: Asked, folder: Path) -> None:
        trial = asked.detail()["trials"][2]
        (artifact,) = trial["artifacts"]
        assert artifact["filename"] == "epoch 4.png" and artifact["mimetype"] == "image/png"
        study_id, trial_id = asked.study._study_id, trial["trial_id"]
        status, headers, content = asked(f"/artifacts/{study_id}/{trial_id}/{artifact['artifact_id']}")
        assert status == 200 and headers["Content-Type"] == "image/png"
        assert "Access-Control-Allow-Origin" not in headers
        assert content == (folder / "trials" / "2" / "images" / "epoch_004.png").read_bytes()
        assert Image.open(io.BytesIO(content)).format == "PNG"

    def test_files_from_outside_are_none(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes(b"secret")
        (folder / "trials" / "link.png").symlink_to(tmp_path / "secret.png")
        named = {"a": "../secret.png", "b": "trials/link.png", "c": str(tmp_path / "secret.png"), "d": "study.db"}
        store.load_study(folder).add_trial(
            create_trial(state=TrialState.FAIL, user_attrs={f"{store.IMAGES_PREFIX}1": named})
        )
        assert Asked(folder).detail()["trials"][3]["artifacts"] == []

    def test_an_artifact_that_is_gone_is_not_found(self) -> None:
        with pytest.raises(optuna.artifacts.exceptions.ArtifactNotFound):
            Pictures(lambda: {"a": Path("/nowhere")}).open_reader("a")


class TestNothingIsChanged:
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    def test_what_would_write_is_refused(self, asked: Asked, folder: Path, method: str) -> None:
        before = _digest(folder)
        for path in ("/api/studies/1", "/api/studies/1/note", "/api/studies", "/api/artifacts/1/1"):
            status, _, content = asked(path, method, body=b"{}")
            assert status == 403 and b"only looks" in content
        assert _digest(folder) == before

    def test_looking_leaves_the_file_as_it_was(self, asked: Asked, folder: Path) -> None:
        before = _digest(folder)
        asked.detail()
        asked.json("/api/studies")
        asked("/csv/1")
        assert _digest(folder) == before

    def test_its_storage_refuses_every_write(self, asked: Asked) -> None:
        looking = Looking(asked.study, dict)
        for name in (
            "set_study_user_attr",
            "set_trial_state_values",
            "delete_study",
            "create_new_trial",
            "set_trial_param",
        ):
            with pytest.raises(ReadOnlyError):
                getattr(looking, name)(1, "a", "b")

    def test_other_studies_of_the_storage_are_not_shown(self, folder: Path) -> None:
        study = store.load_study(folder)
        optuna.create_study(storage=study._storage, study_name="other")
        looking = Looking(study, dict)
        assert [one.study_name for one in looking.get_all_studies()] == ["milo"]
        with pytest.raises(KeyError):
            looking.get_study_id_from_name("other")
        with pytest.raises(KeyError):
            looking.get_trial(999)


class TestDoors:
    def test_the_token_becomes_a_cookie(self, asked: Asked) -> None:
        status, headers, _ = asked(f"/{TOKEN}", cookie="")
        assert status == 302 and headers["Location"] == "/dashboard/studies/1"
        assert headers["Set-Cookie"].startswith(f"{COOKIE};")
        assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]

    @pytest.mark.parametrize("cookie", ["", "tune-lora-8123=wrong", "a=b; =;;", "tune-lora-9=t0ken", "\xff=\xfe"])
    def test_without_it_there_is_nothing(self, asked: Asked, cookie: str) -> None:
        for path in ("/", "/dashboard", "/api/studies", "/artifacts/1/1/00"):
            assert asked(path, cookie=cookie)[0] == 403

    @pytest.mark.parametrize("host", ["evil.example:8123", "127.0.0.1.evil.example", ""])
    def test_another_host_is_refused(self, asked: Asked, host: str) -> None:
        assert asked("/api/studies", host=host)[0] == 403
        assert asked(f"/{TOKEN}", host=host)[0] == 403

    def test_a_mistake_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            dashboard.serve(tmp_path / "nothing", lambda _: None)

    def test_without_the_extra_one_line_says_what_to_install(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = dashboard.importlib.util.find_spec
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: None if name == "optuna_dashboard" else plain(name)
        )
        with pytest.raises(InputError, match=r"pip install 'tune-lora\[dashboard\]'"):
            dashboard.serve(folder, lambda _: None)


def test_a_study_that_runs_is_shown_as_it_is_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process writes, as a driver does; the dashboard that is open shows it, note and all."""
    monkeypatch.setattr(dashboard, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr("optuna_dashboard._app.get_trials", lambda _, storage, study: storage.get_all_trials(study))
    asked = Asked(folder)
    assert len(asked.detail()["trials"]) == 3
    url = store.sqlite_url(folder)
    program = (
        "import optuna\nfrom tune_lora import store\n"
        f"study = store.open_study({url!r}, 'milo', 'minimize', create=False)\n"
        "trial = study.ask(); trial.report(0.5, 1); study.ask()\n"
        "study.tell(trial, state=optuna.trial.TrialState.PRUNED)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    trials = asked.detail()["trials"]
    assert [one["state"] for one in trials[3:]] == ["Pruned", "Running"]
    assert "**pruned**" in trials[3]["note"]["body"] and "**running**" in trials[4]["note"]["body"]


@pytest.mark.slow
def test_in_a_browser(folder: Path, tmp_path: Path) -> None:
    chromium.skip_where_missing()
    environment = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "tune_lora.cli", "dashboard", str(folder)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=chromium.end_with_parent,  # noqa: PLW1509 - one call into libc, which takes no lock
    )
    assert process.stdout is not None
    try:
        address = [process.stdout.readline() for _ in range(2)][1].strip()
        with chromium.started() as browser:
            page = browser.page()
            page.screen(1400, 1000)
            page.open(address)
            page.wait_for("location.pathname === '/dashboard/studies/1' && document.body.innerText.includes('History')")
            page.open(f"{address.rpartition('/')[0]}/dashboard/studies/1/trials?numbers=2")
            page.wait_for("document.body.innerText.includes('place 3 of 3')")
            page.wait_for(
                "[...document.images].some(image => image.src.includes('/artifacts/') && image.naturalWidth > 100)"
            )
            page.screenshot(tmp_path / "dashboard.png")
            assert page.errors == []
        process.send_signal(signal.SIGINT)
        assert process.wait(chromium.DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "study.db").read_bytes()).hexdigest()
