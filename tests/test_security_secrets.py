"""Secrets are planted wherever a study can meet one; then every file it leaves and every line it says is searched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainables.redaction import redacted, without_password
from tune_lora import spec as specs
from tune_lora import store
from tune_lora.errors import InputError
from tune_lora.storage_url import VARIABLE, opened, written

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parent.parent
SECRETS = {
    "WANDB_API_KEY": "a1b2c3d4" * 5,
    "RAY_AUTH_TOKEN": "7d1e6f02c9a84b55b2f1d3e4a5968770",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIplanted/bPxRfiCY",
    "HF_TOKEN": "hf_plantedplantedplantedplanted",
    "MY_SERVICE_PASSWORD": "correct-horse-battery",
}
DATABASE_PASSWORD = "s3cr3t-of-the-database"
TRAINER = """
import os
import re

def train(params, trial):
    if params["rate"] == 2:  # libraries put what they were given into their errors
        raise RuntimeError("no answer with " + os.environ["HF_TOKEN"] + " at postgresql://me:p1a1nt3xt@db/x")
    for epoch in range(trial.done + 1, trial.horizon + 1):
        yield {"val_loss": 1 / (params["rate"] * epoch)}

train.metrics = ["val_loss"]
"""


@dataclass(frozen=True)
class Ended:
    """A study that was run as a user does, and all that it said."""

    folder: Path
    file: Path
    url: str
    said: str


def study_file(folder: Path, url: str) -> Path:
    (folder / "service.py").write_text(TRAINER)
    document = {
        "name": "planted",
        "trainable": "service:train",
        "custom": {"horizon": 2},
        "space": {"name": "four", "parameters": {"rate": {"type": "categorical", "choices": [1, 2, 3, 4]}}},
        "objective": {"metric": "val_loss"},
        "search": {"sampler": "grid"},
        "scheduler": {"name": "none"},
        "budget": {"n_trials": 4, "plateau": None},
        "resources": {"cpu": 1, "gpu": 0, "concurrent": 1},
        "tracking": {"wandb": "offline"},
        "results": str(folder / "results"),
        "storage": url,
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def tune_lora(*arguments: str, expect: int = 0) -> str:
    environment = {**os.environ, **SECRETS, "RAY_AUTH_MODE": "token"}
    command = [sys.executable, "-m", "tune_lora.cli", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    said = ended.stdout + ended.stderr
    assert ended.returncode == expect, said
    return said


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("planted")
    database = folder / "results" / "planted" / "shared.db"
    # A real database whose URL carries a password: SQLite leaves parameters alone that it does not know.
    url = f"sqlite:///file:{database}?uri=true&password={DATABASE_PASSWORD}"
    file = study_file(folder, url)
    return Ended(database.parent, file, url, tune_lora("run", str(file)))


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path, path.read_bytes()
        if path.suffix == ".parquet":  # its columns are compressed
            yield path, str(pyarrow.parquet.ParquetFile(path).read().to_pylist()).encode()


def test_no_file_of_a_study_and_no_line_it_says_holds_a_secret(ended: Ended) -> None:
    secrets = {**SECRETS, "the password of the database": DATABASE_PASSWORD, "one in an error": "p1a1nt3xt"}
    found = list(texts(ended.folder))
    kinds = {path.suffix for path, _ in found}
    assert {".db", ".yaml", ".csv", ".parquet", ".html", ".json", ".txt", ".wandb"} <= kinds
    leaks = [f"{name} in {path}" for name, value in secrets.items() for path, text in found if value.encode() in text]
    leaks += [f"{name} in what was said" for name, value in secrets.items() if value in ended.said]
    assert not leaks, "\n".join(leaks)


def test_the_error_is_still_told(ended: Ended) -> None:
    study = optuna.load_study(study_name="planted", storage=ended.url)
    crashed = [trial for trial in store.read(study).trials if trial.state == "failed"]
    assert len(crashed) == 1
    assert crashed[0].message.startswith("RuntimeError: no answer with *** at postgresql://me:***@db/x")
    traceback = (ended.folder / "trials" / str(crashed[0].number) / "traceback.txt").read_text()
    assert 'raise RuntimeError("no answer with' in traceback


def test_a_study_goes_on_from_its_file_and_from_what_it_left(ended: Ended) -> None:
    left = yaml.safe_load((ended.folder / "study.yaml").read_text())["storage"]
    assert left == ended.url.replace(DATABASE_PASSWORD, "***")
    for file in (ended.file, ended.folder / "study.yaml"):
        tune_lora("run", str(file))
        study = optuna.load_study(study_name="planted", storage=ended.url)
        assert len(study.trials) == 4
    assert DATABASE_PASSWORD not in (ended.folder / "study.yaml").read_text()


# --- URLs of storages ------------------------------------------------------------------------------------------------

WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!$%^*()_+-=.,;:/?#[]@", min_size=1)


@given(user=st.text("abcz_", max_size=5), password=WORDS)
def test_a_password_in_a_url_is_never_written(user: str, password: str) -> None:
    shown = written(f"postgresql://{user}:{password}@host.example:5432/studies")
    assert shown == f"postgresql://{user}:***@host.example:5432/studies"


@pytest.mark.parametrize("url", ["sqlite:////tmp/a.db", "postgresql://tuner@host/studies", "redis://localhost:6379/0"])
def test_a_url_without_a_password_is_written_and_opened_as_it_is(url: str) -> None:
    assert written(url) == opened(url) == url


def test_a_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://tuner:${STUDIES_PASSWORD}@host/studies"
    monkeypatch.setenv("STUDIES_PASSWORD", "p@ss/word")
    assert written(url) == url
    assert opened(url) == "postgresql://tuner:p%40ss%2Fword@host/studies"
    monkeypatch.delenv("STUDIES_PASSWORD")
    with pytest.raises(InputError, match=r"\$\{STUDIES_PASSWORD\} is not set"):
        opened(url)


def test_a_masked_password_comes_from_the_environment_or_is_left_to_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert opened("postgresql://tuner:***@host/studies") == "postgresql://tuner@host/studies"
    assert opened("postgresql://host/studies?password=***&user=me") == "postgresql://host/studies?user=me"
    monkeypatch.setenv(VARIABLE, "p@ss")
    assert opened("postgresql://tuner:***@host/studies") == "postgresql://tuner:p%40ss@host/studies"
    assert (
        opened("postgresql://host/studies?password=***&user=me") == "postgresql://host/studies?password=p%40ss&user=me"
    )


@pytest.mark.parametrize("url", ["postgresql://me:hush-hush@127.0.0.1:1/x", "nonsense://me:hush-hush@host:port/x"])
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        store.open_study(url, "x", "minimize")
    assert "cannot be opened" in str(caught.value)
    assert "hush-hush" not in str(caught.value)


def test_an_earlier_study_in_a_storage_is_written_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://me:hush-hush@host/x"
    document = {"name": "a", "trainer": "curve", "space": "lora_tiny", "search": {"warm_start": [{"study": url}]}}
    study = specs.from_mapping(document, "test")
    assert study.as_mapping()["search"]["warm_start"][0]["study"] == "postgresql://me:***@host/x"
    assert study.search.warm_start[0].study == url


# --- texts -----------------------------------------------------------------------------------------------------------


@given(st.text(), st.text(min_size=8), st.text())
def test_the_value_of_a_secret_variable_is_in_no_text(before: str, secret: str, after: str) -> None:
    shown = redacted(f"{before}{secret}{after}", {"SOME_TOKEN": secret})
    assert secret not in shown or set(secret) <= {"*"}


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        *[(name, True) for name in (*SECRETS, "OPENAI_API_KEY", "PGPASSWORD", "GOOGLE_APPLICATION_CREDENTIALS")],
        *[(name, False) for name in ("HOME", "PATH", "RAY_AUTH_MODE", "KEYBOARD", "TOKENIZERS_PARALLELISM", "PWD")],
    ],
)
def test_which_variables_hold_secrets(name: str, hidden: bool) -> None:
    assert ("the-value-of-it" not in redacted("is the-value-of-it", {name: "the-value-of-it"})) is hidden


@given(st.text(st.characters(exclude_characters="@:"), max_size=200))
def test_text_without_a_url_stays_as_it_is(text: str) -> None:
    assert without_password(text) == text or "=" in text


@pytest.mark.parametrize(
    "key", ["client_secret", "access_key", "sas_token", "AccountKey", "sig", "sslpassword", "X-Amz-Signature", "db.pwd"]
)
def test_secrets_in_the_query_of_a_url_are_masked(key: str) -> None:
    shown = redacted(f"no answer at abfs://a/b?region=x&{key}=planted&timeout=3 today", {})
    assert shown == f"no answer at abfs://a/b?region=x&{key}=***&timeout=3 today"
    assert without_password(f"s3://a?{key}=${{MINE}}") == f"s3://a?{key}=${{MINE}}", "a reference is no secret"


@pytest.mark.parametrize("option", ["sslkey=/a/b.pem", "keepalives_idle=10", "credential_kind=default", "design=a"])
def test_options_that_hold_no_secret_stay(option: str) -> None:
    assert without_password(f"postgresql://host/studies?{option}") == f"postgresql://host/studies?{option}"


def test_the_manual_says_what_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    block = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    study = specs.from_mapping({"name": "a", "trainer": "curve", "space": "lora_tiny", **block}, "docs/security.md")
    monkeypatch.setenv("STUDIES_PASSWORD", "hush-hush")
    assert "hush-hush" in opened(study.storage_url)
    assert "hush-hush" not in str(study.as_mapping())
    assert f"`{VARIABLE}`" in text
    named = re.findall(r"`(tests/[\w./]+)`", text)
    assert named and all((ROOT / name).is_file() for name in named)
