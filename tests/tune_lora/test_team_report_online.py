"""The team report with the real client, against a stand-in for the server that checks each request by a schema and each
report by wandb-workspaces' own models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import wandb_schema
from tests.tune_lora import tracked
from tests.wandb_answers import ENTITY, Run
from tests.wandb_reports import PAGE, View, wrong_spec
from tests.wandb_server import KEY, WandbServer
from tune_lora import cli, store, team_report
from tune_lora.errors import InputError, TuneLoraError
from tune_lora.team_report import _publish
from tune_lora.team_report._page import NOTES
from tune_lora.tracking import Place, run_id
from tune_lora.tracking_feed import WandbTracker

pytestmark = pytest.mark.alone

pytest.importorskip("wandb_workspaces", reason="no wandb-workspaces; pip install 'tune-lora[wandb-report]'")
TOKEN = "a-token"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    tracked.nobody_is_logged_in(monkeypatch, tmp_path)
    with WandbServer() as one:
        for name, value in one.environment.items():
            monkeypatch.setenv(name, value)
        yield one


@pytest.fixture
def folder(example: Any, tmp_path: Path) -> Path:
    """A study that was tracked."""
    copied = tmp_path / "glow"
    shutil.copytree(example.folder, copied)
    store.load_study(copied).set_user_attr(store.TRACKING, TOKEN)
    return copied


def uploaded(server: WandbServer, folder: Path, *, group: str = "glow") -> None:
    """The study's runs, as the server has them."""
    for trial in store.load(folder).trials:
        name = run_id(TOKEN, trial.number)
        server.runs[name] = Run(name, f"trial-{trial.number:03d}", group, "tune-lora")


def only(server: WandbServer) -> View:
    (view,) = server.views.values()
    return view


# --- what it does ----------------------------------------------------------------------------------------------------


def test_it_is_made_once_and_then_brought_up_to_date(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    first = team_report.publish(folder)
    view = only(server)
    assert not server.mistakes
    assert first.lines() == [f"made: {server.url}/{ENTITY}/tune-lora/reports/Study-glow--{view.id}"]
    assert (view.entity, view.project, view.display_name) == (ENTITY, "tune-lora", "Study glow")
    assert view.content["width"] == "fluid"
    assert store.load_study(folder).user_attrs[store.TEAM_REPORT] == {"id": view.id, "url": first.url}

    again = team_report.publish(folder / "study.db")
    assert again.lines() == [f"brought up to date: {first.url}"]
    assert (only(server).id, only(server).saved) == (view.id, 2)
    assert not server.mistakes


def test_what_people_wrote_in_it_stays(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    team_report.publish(folder)
    view = only(server)
    written = {"type": "paragraph", "children": [{"text": "we take trial 8", "bold": True}, {"text": " for the film"}]}
    odd = {"type": "something-new", "children": [{"text": "a block that the client does not know"}]}
    content = view.content
    view.spec = json.dumps({**content, "blocks": [*content["blocks"], written, odd]})
    for _ in range(2):
        team_report.publish(folder)
    blocks = only(server).content["blocks"]
    assert blocks[-2:] == [written, odd]
    assert sum(block["children"][0].get("text") == NOTES.heading for block in blocks) == 1
    assert len(blocks) == len(content["blocks"]) + 2 and not server.mistakes


@pytest.mark.parametrize("says_so", ["by nothing", "by an error"])
def test_one_that_was_deleted_is_made_anew(server: WandbServer, folder: Path, says_so: str) -> None:
    uploaded(server, folder)
    first = team_report.publish(folder)
    server.views.clear()
    if says_so == "by an error":
        server.fail("SpecificReport", "view not found")
    second = team_report.publish(folder)
    assert second.is_new and second.url != first.url
    assert second.lines() == [
        "the earlier report is not on this server any more: this is a new one",
        f"made: {second.url}",
    ]
    assert store.load_study(folder).user_attrs[store.TEAM_REPORT]["url"] == second.url
    assert not server.mistakes


def test_an_error_that_is_no_deletion_makes_no_second_report(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    team_report.publish(folder)
    server.fail("SpecificReport", "permission denied")
    with pytest.raises(TuneLoraError, match=r"^Weights & Biases: input: permission denied$"):
        team_report.publish(folder)
    assert only(server).saved == 1


def test_runs_of_more_than_a_page_are_all_found(server: WandbServer, folder: Path) -> None:
    for number in range(2 * PAGE + 3):  # of an earlier study of this name
        server.runs[f"{number:016x}"] = Run(f"{number:016x}", "trial", "glow", "tune-lora")
    uploaded(server, folder)
    assert team_report.publish(folder).missing == 0
    assert server.operations.count("StudyRuns") == 3
    grids = [block for block in only(server).content["blocks"] if block["type"] == "panel-grid"]
    chosen = [grid["metadata"]["runSets"][0]["filters"]["filters"][0] for grid in grids]
    mine = {run_id(TOKEN, trial.number) for trial in store.load(folder).trials}
    assert all(one["key"]["name"] == "name" and set(one["value"]) <= mine for one in chosen)


def test_trials_without_a_run_are_counted(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    del server.runs[run_id(TOKEN, 3)], server.runs[run_id(TOKEN, 4)]
    first, _ = team_report.publish(folder).lines()
    assert first == "2 of the trials that ended have no run there: panels lack them, tables do not"


def test_another_entity_is_found_where_runs_were_seen(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    journal = folder / "logs" / "wandb" / "tracked.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text(json.dumps({"url": f"{server.url}/gone/tune-lora/groups/glow", "session": "a"}) + "\n")
    team_report.publish(folder)
    assert only(server).entity == ENTITY and server.operations.count("StudyRuns") == 2


def test_what_is_sent_holds_no_secret(server: WandbServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENDER_FARM_TOKEN", "0.4 GiB free")  # what a trial's message says
    uploaded(server, folder)
    team_report.publish(folder)
    assert "asked for 1.2 GiB, ***" in only(server).spec
    assert "0.4 GiB free" not in only(server).spec and KEY not in only(server).spec


# --- what it refuses -------------------------------------------------------------------------------------------------


def test_without_the_package_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_publish, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"pip install 'tune-lora\[wandb-report\]'"):
        team_report.publish(folder)


def test_without_a_login_it_says_how(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tracked.nobody_is_logged_in(monkeypatch, tmp_path)
    with pytest.raises(InputError, match="no login at Weights & Biases; must be: wandb login, or WANDB_API_KEY"):
        team_report.publish(folder)


def test_a_study_without_runs_says_how_they_come(
    server: WandbServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=f"no run of it is at {ENTITY}/tune-lora .*tune-lora resume .*wandb=online"):
        team_report.publish(folder)
    monkeypatch.setenv("WANDB_ENTITY", "others")
    with pytest.raises(InputError, match="no run of it is at others/tune-lora"):
        team_report.publish(folder)
    monkeypatch.delenv("WANDB_ENTITY")
    uploaded(server, folder, group="another study")
    with pytest.raises(InputError, match="no run of it is at"):
        team_report.publish(folder)
    assert not server.views and not server.mistakes


def test_a_study_that_was_not_tracked_says_so(server: WandbServer, example: Any) -> None:
    with pytest.raises(InputError, match=r"the study was not tracked, so it has no runs; .*wandb=online"):
        team_report.publish(example.folder)
    assert not server.operations


def on_disk(folder: Path, trial: int) -> Path:
    name = run_id(TOKEN, trial)
    file = folder / "logs" / "wandb" / f"offline-run-20260301_210000-{name}" / f"run-{name}.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a run")
    return file


def test_runs_on_disk_must_be_uploaded_first(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    file = on_disk(folder, 7)
    assert team_report.publish(folder).missing == 0, "it was uploaded from elsewhere"
    del server.runs[run_id(TOKEN, 7)]
    with pytest.raises(InputError) as mistake:
        team_report.publish(folder)
    assert str(mistake.value) == (
        f"1 run is on disk only; must be uploaded first: wandb sync {folder}/logs/wandb/offline-run-*"
    )
    file.with_name(f"{file.name}.synced").touch()
    assert team_report.publish(folder).missing == 1
    assert not server.mistakes


def test_a_server_that_refuses_is_one_line(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    server.status = 401
    with pytest.raises(TuneLoraError, match=r"^Weights & Biases: [^\n]+$"):
        team_report.publish(folder)
    assert store.TEAM_REPORT not in store.load_study(folder).user_attrs


# --- the command -----------------------------------------------------------------------------------------------------


def tune_lora(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, what it printed, and its errors."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([str(one) for one in arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_command_says_where_it_is_and_nothing_else(
    server: WandbServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    uploaded(server, folder)
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")  # of runs; a report is at the server or not at all
    ended = tune_lora(capsys, "report", folder, "--wandb")
    where = f"{server.url}/{ENTITY}/tune-lora/reports/Study-glow--{only(server).id}"
    assert ended == (0, f"made: {where}\n", "")
    assert sorted(tmp_path.iterdir()) == before, "it leaves nothing where it is run"


def test_the_command_says_one_line_of_what_is_wrong(server: WandbServer, folder: Path, capsys: Any) -> None:
    on_disk(folder, 7)
    code, out, errors = tune_lora(capsys, "report", folder, "--wandb")
    assert (code, out) == (2, "")
    assert errors.startswith("error: 1 run is on disk only") and errors.count("\n") == 1


def test_without_wandb_it_writes_the_page(folder: Path, capsys: Any) -> None:
    (folder / "report.html").unlink(missing_ok=True)
    assert tune_lora(capsys, "report", folder) == (0, f"{folder}/report.html\n", "")
    assert (folder / "report.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_a_server_that_says_nothing_is_one_line(server: WandbServer, folder: Path) -> None:
    server.gate.clear()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_HTTP_TIMEOUT": "3"}
    command = [sys.executable, "-m", "tune_lora.cli", "report", str(folder), "--wandb"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: Weights & Biases: the server did not answer in time\n"


# --- that panels find what runs have ---------------------------------------------------------------------------------


def test_every_name_in_a_panel_is_one_that_runs_have(server: WandbServer, build_study: Any, tmp_path: Path) -> None:
    example = build_study(tmp_path / "glow", 5)
    example.study.set_user_attr(store.TRACKING, TOKEN)
    record = example.record
    tracker = WandbTracker(Place("tune-lora", "glow", TOKEN, example.folder), online=True)
    tracker.look(record, record.trials)
    tracker.close(120)
    team_report.publish(example.folder)
    runs = [server.runs[run_id(TOKEN, trial.number)] for trial in record.ranked()]
    seen = 0
    for accessor in accessors(only(server).content):
        section, _, name = accessor.partition(":")
        assert all(has(run, section, name) for run in runs), accessor
        seen += 1
    assert seen >= 12 and not server.mistakes


def accessors(content: Any) -> Iterator[str]:
    for block in content["blocks"]:
        if block["type"] != "panel-grid":
            continue
        for panel in block["metadata"]["panelBankSectionConfig"]["panels"]:
            told = panel["config"]
            yield from (told[name] for name in ("xAxis", "yAxis") if ":" in told.get(name, ""))
            yield from (column["accessor"] for column in told.get("columns", ()))
            yield from (f"history:{name}" for name in told.get("metrics", ()))
            yield from ([f"summary:{told['targetKey']}"] if "targetKey" in told else [])
            if panel["viewType"] == "Run History Line Plot":
                yield f"history:{told['xAxis']}"
            if panel["viewType"] == "Weave":
                yield f"summary:{told['panel2Config']['exp']['fromOp']['inputs']['key']['val']}"


def has(run: Run, section: str, name: str) -> bool:
    if section == "history":
        return any(name in line for line in run.history)
    if section == "summary":
        return name in run.summary
    found: Any = run.config
    flat = name.removesuffix(".value")
    if flat in run.config:
        return "value" in run.config[flat]
    for part in name.split("."):
        found = found.get(part, {})
    return found != {}


# --- that the stand-in would notice ----------------------------------------------------------------------------------


def test_every_document_that_the_client_ships_is_valid_by_the_schema() -> None:
    shipped = wandb_schema.documents()
    assert {"upsertView", "SpecificReport", "ProjectInternalId", "GetProjects", "GetDefaultEntity"} <= set(shipped)
    assert {name: wandb_schema.wrong(text) for name, text in shipped.items() if wandb_schema.wrong(text)} == {}


@pytest.mark.parametrize(
    ("document", "variables", "said"),
    [
        ("query A($reportId: ID!) { view(id: $reportId) { id nothing } }", {"reportId": "x"}, "nothing"),
        ("query A($reportId: ID!) { view(id: $reportId) { id } }", {}, "reportId"),
        ("query A($reportId: ID!) { view(id: $reportId) { id } }", {"reportId": {}}, "reportId"),
        ("query A($reportId: ID!) { view(id: $reportId) { id } }", {"reportId": "x", "more": 1}, "$more"),
        ("query A($reportId: Int!) { view(id: $reportId) { id } }", {"reportId": 1}, "reportId"),
        ("mutation A { upsertView(input: {id: 1}) { inserted } }", {}, "spec"),
    ],
)
def test_a_wrong_request_is_noticed(document: str, variables: Any, said: str) -> None:
    _, mistakes = wandb_schema.answered(document, variables, {"view": None})
    found = wandb_schema.wrong(document) + mistakes
    assert found and any(said in one for one in found)


def test_a_wrong_report_is_noticed(server: WandbServer, folder: Path) -> None:
    uploaded(server, folder)
    team_report.publish(folder)
    content = only(server).content
    assert wrong_spec(json.dumps(content)) == ""
    for change in ({"width": 7}, {"nothing": "known"}, {"blocks": [{"type": "no-such-block", "children": []}]}):
        assert wrong_spec(json.dumps({**content, **change})) != ""
