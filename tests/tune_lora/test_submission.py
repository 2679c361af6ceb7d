"""From a study file to a package: what it says afterwards, what is in it, and what is refused before anything is
sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from cluster import job as on_cluster
from tests.tune_lora.studies import RATES
from tune_lora import along, build, job_secrets, same_study, spec, storage, submission
from tune_lora.errors import InputError, InputErrors

SECRET = "planted-value-of-a-secret-4711"
SHARED = "/nowhere/results"


def curve(**changes: Any) -> dict[str, Any]:
    return {
        "name": "curves",
        "trainer": "curve",
        "space": RATES,
        "tracking": {"wandb": "off"},
        "results": SHARED,
        **changes,
    }


def loaded(folder: Path, **changes: Any) -> spec.StudySpec:
    (folder / "study.yaml").write_text(yaml.safe_dump(curve(**changes)))
    return spec.load(folder / "study.yaml")


def texts(sent: submission.Submission) -> dict[str, str]:
    """Everything in the package that is not the program itself."""
    with submission.written_package(sent) as folder:
        own = [folder / on_cluster.STUDY, folder / on_cluster.DESCRIPTION, *(folder / "inputs").rglob("*")]
        return {str(path.relative_to(folder)): path.read_text() for path in own if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"results": "results"}, "results: got 'results', which would be lost with the job; must be an absolute path"),
        ({"storage": "sqlite:///study.db"}, "storage: got 'sqlite:///study.db', which would be lost with the job"),
    ],
)
def test_what_would_be_lost_is_refused(changes, said, tmp_path):
    with pytest.raises(InputErrors) as refused:
        submission.prepared(loaded(tmp_path, **changes))
    (line,) = refused.value.mistakes
    assert line.startswith(said)


def test_the_study_that_is_sent_is_the_same_study_on_its_own_driver(tmp_path):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(RATES))
    asked = loaded(tmp_path, space="space.yaml", resources={"address": "10.0.0.1:6379"})
    found = texts(submission.prepared(asked, arguments=("--n-trials", "+5")))
    there = spec.from_mapping(yaml.safe_load(found["study.yaml"]), "sent")
    assert there.space == RATES and there.resources.address is None and there.name == "curves"
    about = json.loads(found["job.json"])
    assert about["folder"] == f"{SHARED}/curves" and about["arguments"] == ["--n-trials", "+5"]


def test_two_submissions_of_the_same_study_name_the_same_paths(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    sent = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        (folder / "start.csv").write_text("learning_rate,max_train_epochs\n0.001,4\n")
        asked = loaded(folder, search={"start_with": "start.csv"})
        sent.append(texts(submission.prepared(asked)))
    assert sent[0] == sent[1]
    (path,) = [name for name in sent[0] if name.endswith("start.csv")]
    assert yaml.safe_load(sent[0]["study.yaml"])["search"]["start_with"] == f"{SHARED}/curves/{path}"


def test_what_lies_on_a_shared_disk_stays_there(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "start.csv").write_text("learning_rate,max_train_epochs\n0.001,4\n")
    asked = loaded(tmp_path, search={"start_with": str(shared / "start.csv")})
    found = texts(submission.prepared(asked, shared=[shared]))
    assert set(found) == {"study.yaml", "job.json"}
    assert yaml.safe_load(found["study.yaml"])["search"]["start_with"] == str(shared / "start.csv")


def test_data_that_are_not_here_are_said_to_be_expected_on_the_nodes(tmp_path):
    asked = loaded(tmp_path, trainer="classifier", space="classifier_conservative", data={"path": "/nowhere/rows.csv"})
    assert "/nowhere/rows.csv is not on this machine: all nodes must see it there" in submission.prepared(asked).told
    relative = loaded(tmp_path, trainer="classifier", space="classifier_conservative", data={"path": "rows.csv"})
    with pytest.raises(InputErrors, match=r"rows\.csv: does not exist here; must, or be an absolute path on the nodes"):
        submission.prepared(relative)


def test_a_package_that_is_too_large_names_what_is(tmp_path):
    (tmp_path / "large.csv").write_bytes(b"0" * 4 * 1024 * 1024)
    asked = loaded(tmp_path, search={"start_with": "large.csv"})
    with pytest.raises(InputErrors) as refused:
        submission.prepared(asked, max_mib=3)
    assert "name it with --shared, or raise --max-mib" in refused.value.mistakes[0]
    assert refused.value.mistakes[1] == f"{tmp_path / 'large.csv'}: 4.0 MiB"


def test_of_a_list_of_images_their_folder_goes_along(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for index in range(8):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
    lines = ["file_name,label", *(f"{index}.png,{index % 2}" for index in range(8))]
    (tmp_path / "images" / "rows.csv").write_text("\n".join(lines) + "\n")
    changes = {"trainer": "classifier", "space": "classifier_conservative", "data": {"path": "images/rows.csv"}}
    sent = submission.prepared(loaded(tmp_path, **changes))
    sent_files = {item.target.name for item in sent.items if item.target.parts[0] == "inputs"}
    assert sent_files == {"rows.csv", *(f"{index}.png" for index in range(8))}
    assert sent.spec.data is not None and sent.spec.data.path.endswith("/images/rows.csv")


def test_a_dataset_toml_whose_images_lie_elsewhere_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "dataset.toml"
    file.write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "../images"\n')
    asked = loaded(tmp_path, trainer="diffusion_lora", space="lora_tiny", dataset={"path": "set/dataset.toml"})
    with pytest.raises(InputError, match=r"image_dir '\.\./images' lies elsewhere; must be in .*set, or use --shared"):
        submission.prepared(asked)


def test_of_an_earlier_study_that_is_written_just_now_all_its_trials_go_along(tmp_path):
    file = tmp_path / "earlier" / "study.db"
    file.parent.mkdir()
    driver = storage.connected(f"sqlite:///{file}", drives=True)
    earlier = optuna.create_study(study_name="earlier", storage=driver)
    earlier.add_trials([optuna.trial.create_trial(value=float(index)) for index in range(3)])
    assert Path(f"{file}-wal").stat().st_size, "what was written is not in the file yet"
    sent = submission.prepared(loaded(tmp_path, search={"warm_start": [{"study": "earlier"}]}))
    try:
        with submission.written_package(sent) as folder:
            (copy,) = (folder / "inputs").rglob("study.db*")
            assert len(optuna.load_study(study_name="earlier", storage=f"sqlite:///{copy}").trials) == 3
    finally:
        driver.engine.dispose()
    (source,) = [item.source for item in sent.items if item.target.name == "study.db"]
    assert source.is_file()
    del sent
    assert not source.parent.exists(), "the copy goes when it is no longer wanted"


def test_what_is_not_sent_for_its_name_is_said(tmp_path):
    (tmp_path / "earlier").mkdir()
    for name in ("token.txt", "rows.txt", ".env"):
        (tmp_path / "earlier" / name).write_text("x")
    found = along.Along(Path(SHARED), [])
    found.place(str(tmp_path / "earlier"))
    assert [item.target.name for item in found.items] == ["rows.txt"]
    assert found.withheld == [f"not sent of {tmp_path / 'earlier'}, for names that secrets have: token.txt"]


def test_a_study_that_began_here_with_a_space_of_its_own_goes_on_where_it_is_submitted(tmp_path):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(RATES))
    asked = loaded(tmp_path, space="space.yaml")
    sent = submission.prepared(asked).spec
    for first, then in ((asked, sent), (sent, asked)):
        begun = optuna.create_study()
        same_study.settle(begun, build.plan(first))
        same_study.settle(begun, build.plan(then))
    other = {**RATES, "name": "other"}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(InputError, match=r"made with other settings \(space\.name: 'other' -> 'rates'\)"):
        same_study.settle(begun, build.plan(sent))


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)


def test_secrets_are_sealed_and_in_no_file(tmp_path, monkeypatch, with_token):
    monkeypatch.setenv("MY_KEY", SECRET)
    sent = submission.prepared(loaded(tmp_path), env=["MY_KEY"])
    environment = sent.environment(100)
    assert SECRET not in json.dumps(environment) and SECRET not in json.dumps(texts(sent))
    assert on_cluster.unsealed(environment[on_cluster.SEALED], "t" * 64) == {"MY_KEY": SECRET}
    assert environment["COLUMNS"] == "100"
    assert "sent sealed: MY_KEY" in sent.told and SECRET not in " ".join(sent.told)


def test_a_password_in_the_study_file_travels_sealed(tmp_path, with_token):
    url = f"postgresql://tuner:{SECRET}@db.example/studies"
    sent = submission.prepared(loaded(tmp_path, storage=url))
    assert SECRET not in json.dumps(texts(sent))
    assert sent.secrets == {"TUNE_LORA_STORAGE_PASSWORD": SECRET}


def test_a_variable_that_is_not_set_is_named(tmp_path, monkeypatch, with_token):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(InputErrors, match=r"--env: MY_KEY is not set here; must be"):
        submission.prepared(loaded(tmp_path), env=["MY_KEY"])


def test_without_a_token_secrets_are_not_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    sent = submission.prepared(loaded(tmp_path, tracking={"wandb": "online"}))
    assert on_cluster.SEALED not in sent.environment(80)
    assert any(line.startswith("WANDB_API_KEY: not sent") for line in sent.told)
    asked = submission.prepared(loaded(tmp_path), env=["WANDB_API_KEY"])
    with pytest.raises(InputError, match=r"--env: got WANDB_API_KEY for a cluster without a token"):
        asked.environment(80)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"tracking": {"wandb": "online"}}, ["WANDB_API_KEY"]),
        ({"storage": "postgresql://a:${MINE}@h/d"}, ["MINE"]),
        ({"storage": "postgresql://a:***@h/d"}, ["TUNE_LORA_STORAGE_PASSWORD"]),
        (
            {"trainer": "llm_lora", "space": "llm_lora", "base": "some/model", "text": {"path": "/t.jsonl"}},
            ["HF_TOKEN"],
        ),
        ({"trainer": "llm_lora", "space": "llm_lora", "base": "smollm2", "text": {"path": "/t.jsonl"}}, []),
    ],
)
def test_a_study_asks_for_the_secrets_that_it_needs(changes, names, tmp_path):
    assert job_secrets.needed(spec.from_mapping(curve(**changes), "test")) == names


def test_stores_need_their_keys(tmp_path):
    asked = spec.from_mapping(curve(resources={"mirror": "s3://bucket/prefix"}), "test")
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(job_secrets.needed(asked))
