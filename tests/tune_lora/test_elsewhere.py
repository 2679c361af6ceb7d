"""A results folder whose study is in a database server: status, top, plot and resume find it there."""

from __future__ import annotations

import select
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from search_spaces.space import Space
from tests.postgres import Postgres, postgres, skip_where_missing
from tests.tune_lora.studies import RATES
from tune_lora import drivers, sources, store
from tune_lora.cli import app
from tune_lora.errors import InputError
from tune_lora.exports import write_study_file
from tune_lora.searcher import StudySearcher
from tune_lora.spec import StudySpec, from_mapping

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    skip_where_missing()
    with postgres() as running:
        yield running


@pytest.fixture
def study(server: Postgres, tmp_path: Path, request: pytest.FixtureRequest) -> StudySpec:
    """A study of three trials; its results folder holds study.yaml alone."""
    named = {
        "name": f"s{abs(hash(request.node.name))}",
        "trainer": "curve",
        "space": RATES,
        "storage": server.url,
        "results": str(tmp_path / "results"),
        "budget": {"n_trials": 3},
    }
    spec = from_mapping(named, "study")
    held = store.open_study(server.url, spec.name, "minimize")
    held.set_user_attr(store.SPEC, spec.as_mapping())
    with drivers.joined(held):
        searcher = StudySearcher(
            held,
            Space.load(RATES),
            direction="minimize",
            n_trials_total=3,
            sampler="random",
            trial_folder=lambda number: spec.folder / "trials" / str(number),
        )
        for index in range(3):
            assert isinstance(searcher.suggest(str(index)), dict)
            last = {"budget": 4, "score": 0.5 + index, "final": True, "metrics": {"val_loss": 1.0}}
            searcher.on_trial_complete(str(index), last)
    spec.folder.mkdir(parents=True)
    write_study_file(spec.as_mapping(), spec.folder)
    return spec


@pytest.fixture(autouse=True)
def own(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has said which database is theirs."""
    monkeypatch.setenv("TUNE_LORA_STORAGE", server.url.replace(server.password, "***"))
    monkeypatch.setenv("TUNE_LORA_STORAGE_PASSWORD", server.password)


@pytest.mark.parametrize("command", ["status", "top"])
def test_what_reads_results_reads_them(command: str, study: StudySpec) -> None:
    shown = CliRunner().invoke(app, [command, str(study.folder)])
    assert shown.exit_code == 0, shown.output
    assert "0.5" in shown.output


def test_figures_are_drawn(study: StudySpec) -> None:
    drawn = CliRunner().invoke(app, ["plot", str(study.folder), "--kind", "optimization_history"])
    assert drawn.exit_code == 0, drawn.output
    assert (study.folder / "figures" / "optimization_history.png").is_file()


def test_it_goes_on_where_it_was(study: StudySpec) -> None:
    found = sources.study_to_resume(study.folder)
    assert found.name == study.name and found.folder == study.folder
    assert found.storage_url.startswith("postgresql://tuner:***@")
    assert len(store.open_study(found.storage_url, found.name, "minimize").trials) == 3


def test_a_moved_folder_leads_there_still(study: StudySpec, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.move(study.folder, moved)
    assert len(sources.record_of(moved).trials) == 3


def test_without_the_password_it_is_one_line(
    study: StudySpec, monkeypatch: pytest.MonkeyPatch, server: Postgres
) -> None:
    monkeypatch.delenv("TUNE_LORA_STORAGE_PASSWORD")
    with pytest.raises(InputError, match=r"tuner:\*\*\*@.*set TUNE_LORA_STORAGE_PASSWORD") as told:
        sources.record_of(study.folder)
    assert "\n" not in str(told.value) and server.password not in str(told.value)


def test_it_goes_on_with_the_password_of_the_own_url(
    study: StudySpec, monkeypatch: pytest.MonkeyPatch, server: Postgres
) -> None:
    monkeypatch.delenv("TUNE_LORA_STORAGE_PASSWORD")
    monkeypatch.setenv("SECRET_OF_MINE", server.password)
    monkeypatch.setenv("TUNE_LORA_STORAGE", server.url.replace(server.password, "${SECRET_OF_MINE}"))
    found = sources.study_to_resume(study.folder)
    assert len(store.open_study(found.storage_url, found.name, "minimize").trials) == 3


def test_a_server_that_nobody_but_the_folder_names_is_not_asked(
    study: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for own in (None, "postgresql://tuner:mine-alone@db.example/studies"):
        monkeypatch.delenv("TUNE_LORA_STORAGE")
        if own is not None:
            monkeypatch.setenv("TUNE_LORA_STORAGE", own)
        with pytest.raises(InputError, match=r"study\.yaml: .*tuner:\*\*\*@127.*set TUNE_LORA_STORAGE to") as told:
            sources.record_of(study.folder)
        assert "\n" not in str(told.value) and "mine-alone" not in str(told.value)
        monkeypatch.setenv("TUNE_LORA_STORAGE", "")


@pytest.mark.parametrize(
    "said",
    [
        "${AWS_SECRET_ACCESS_KEY}@{place}",
        "user:${AWS_SECRET_ACCESS_KEY}@{place}",
        "user:***@{place}",
        "{place}?user=a&password=***",
        "user@{place}?application_name=${AWS_SECRET_ACCESS_KEY}",
        "tuner:***@127.0.0.1:{port}/studies?host={place}",
    ],
)
@pytest.mark.parametrize("command", ["status", "top", "plot"])
def test_a_strangers_folder_makes_nobody_call(
    said: str, command: str, server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "a-secret-of-mine")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        place = f"127.0.0.1:{stranger.getsockname()[1]}/db"
        url = f"postgresql://{said}".replace("{place}", place).replace("{port}", str(server.port + 1))
        (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "mine", "storage": url}))
        shown = CliRunner().invoke(app, [command, str(tmp_path)])
        called, _, _ = select.select([stranger], [], [], 0)
    assert not called
    assert isinstance(shown.exception, InputError)
    assert "set TUNE_LORA_STORAGE to" in str(shown.exception) and "a-secret" not in str(shown.exception)


def test_an_own_url_that_is_none_is_one_line(study: StudySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_LORA_STORAGE", "db.example/studies")
    with pytest.raises(InputError, match=r"^TUNE_LORA_STORAGE: got 'db\.example/studies'; must be a URL"):
        sources.record_of(study.folder)


def test_a_file_that_is_no_study_is_left_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mine.db")) as mine:
        mine.execute("CREATE TABLE notes (text TEXT)")
    before = (tmp_path / "mine.db").read_bytes()
    for url in (
        f"sqlite:///{tmp_path}/mine.db",
        f"sqlite:///file:{tmp_path}/mine.db?mode=rw&uri=true",
        f"sqlite:///file:{tmp_path}/new.db?mode=rwc&uri=true",
        "sqlite://",
    ):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "a", "storage": url}))
        with pytest.raises(InputError, match=r"not an Optuna study|must be a file"):
            sources.record_of(tmp_path)
    assert (tmp_path / "mine.db").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.db", "study.yaml"]


def test_a_folder_that_names_no_storage_is_none(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "a", "space": "lora_tiny"}))
    with pytest.raises(InputError, match=r"no study\.db here"):
        sources.results_folder(tmp_path)
