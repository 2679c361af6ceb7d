"""What goes along with a study, what never does, and how what is secret is kept so on the way."""

from __future__ import annotations

import itertools
import json
import os
import string
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import job, package
from cluster.tail import Tail
from tune_lora.errors import InputError, InputErrors

ROOT = Path(__file__).parents[2]
SECRETS = (
    *(".env", ".env.local", ".netrc", ".pgpass", ".git-credentials", ".pypirc", ".npmrc", ".kube/config"),
    *(".docker/config.json", ".gnupg/x", ".config/gcloud/a.json", ".huggingface/token", ".azure/x", ".aws/credentials"),
    *("server.pem", "id_rsa", "id_ed25519.pub", "id_ecdsa", "auth_token", "credentials.json", "credentials"),
    *("service-account.json", "my-service_account-1.json", "client_secret_1.json", "secrets.yaml", "my.secrets.toml"),
    *(
        "kubeconfig",
        "kubeconfig.yaml",
        "prod.kubeconfig",
        "token",
        "HF_TOKEN.txt",
        "hf-token",
        "Passwords.txt",
        "a.p12",
    ),
)
HARMLESS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokens.txt"),
    *("id_0001.png", "keys.csv", "secretary.png", "secret.png", "tokenized.jsonl"),
)


def targets(items):
    return {str(item.target) for item in items}


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "data"
    for name in ("a.png", "a.txt", "deep/b.png", ".git/config", "__pycache__/x.pyc", ".cache/y", *SECRETS):
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_text(name)
    return found


def test_data_go_along_without_caches_and_secrets(folder):
    for name in HARMLESS:
        (folder / name).write_text(name)
    harmless = {f"data/{name}" for name in HARMLESS}
    assert targets(package.of_data(folder)) == {"data/a.png", "data/a.txt", "data/deep/b.png", *harmless}
    assert targets(package.of_data(folder / "a.txt")) == {"a.txt"}
    without_dots = {folder / name for name in SECRETS if not name.startswith(".")}
    assert set(package.withheld(folder)) == without_dots, "what stays here for its name alone can be said"


def test_code_goes_along_without_secrets(folder):
    (folder / "my.py").write_text("")
    (folder / "token.py").write_text("")
    (folder / "tokens.txt").write_text("")
    assert targets(package.of_code(folder)) == {"my.py", "a.txt", "token.py", "tokens.txt"}


@pytest.mark.parametrize("what", ["", "..", "/"])
def test_the_home_folder_is_not_sent(tmp_path, monkeypatch, what):
    home = tmp_path / "users" / "me"
    (home / "data").mkdir(parents=True)
    (home / "data" / "my.py").write_text("")
    monkeypatch.setenv("HOME", str(home))
    for send in (package.of_data, package.of_code):
        with pytest.raises(InputError, match=r"is or holds the home folder .*; must be a folder in it") as refused:
            send(home / what)
        assert len(str(refused.value).splitlines()) == 1
        assert len(send(home / "data")) == 1


def test_a_linked_folder_is_refused_as_it_would_not_go_along(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.png").write_text("")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "deep" / "again").symlink_to(folder / "deep")
    (folder / "venv").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputErrors) as refused:
        package.of_data(folder)
    said = "is a link to a folder, which would not go along; must be a folder, or use --shared"
    assert refused.value.mistakes == (f"{folder / 'more'}: {said}", f"{folder / 'deep' / 'again'}: {said}")


def test_a_link_out_of_the_data_is_refused_and_one_within_goes_along(folder, tmp_path):
    (folder / "same.png").symlink_to(folder / "a.png")
    assert "data/same.png" in targets(package.of_data(folder))
    (tmp_path / "passwords").write_text("x")
    (folder / "b.txt").symlink_to(tmp_path / "passwords")
    with pytest.raises(InputErrors, match=r"b\.txt: is a link that leads out of .*data; must be a file"):
        package.of_data(folder)


def test_code_is_python_and_small_texts_but_no_weights_nor_results(tmp_path):
    for name in (
        "my.py",
        "part/more.py",
        "table.csv",
        "w.safetensors",
        "results/a.py",
        ".venv/lib/b.py",
        "c.yaml",
        ".env",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert targets(package.of_code(tmp_path)) == {"my.py", "part/more.py", "c.yaml"}


def test_the_program_itself_has_all_that_it_imports_and_reads(tmp_path):
    items = package.of_checkout(ROOT, ("tune_lora", "trainables", "search_spaces", "cluster"), weights=False)
    assert sum(item.size for item in items) < 10 * package.MIB
    assert "tune_lora/job_secrets.py" in targets(items), "a module may be called so"
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tune_lora").rglob("*.py")} <= targets(items)
    package.write(items, tmp_path)
    program = (
        "import tune_lora; from tune_lora.cli import main; print(tune_lora.__file__); main(['validate', 'demo.yaml'])"
    )
    (tmp_path / "demo.yaml").write_text("name: a\ntrainer: curve\nspace: lora_tiny\n")
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(str(tmp_path)) and "valid" in ended.stdout


def test_the_small_models_go_along_where_they_are_needed():
    with_weights = package.of_checkout(ROOT, ("tune_lora", "trainables"), weights=True)
    assert "trainables/tiny_sd/weights/unet/diffusion_pytorch_model.safetensors" in targets(with_weights)


def test_what_is_too_large_is_named_before_it_is_sent(tmp_path):
    for name, size in (("large.bin", 3), ("small.bin", 1), ("middle.bin", 2)):
        (tmp_path / name).write_bytes(b"0" * size * package.MIB)
    items = package.of_data(tmp_path)
    package.check(items, 6, "do so")
    with pytest.raises(InputErrors) as refused:
        package.check(items, 5.5, "put it elsewhere")
    first, *largest = refused.value.mistakes
    assert first == "the package is 6.0 MiB in 3 files; must be at most 5.5 MiB; put it elsewhere"
    assert [line.rpartition("/")[2] for line in largest] == [
        "large.bin: 3.0 MiB",
        "middle.bin: 2.0 MiB",
        "small.bin: 1.0 MiB",
    ]
    with pytest.raises(InputError, match=r"--max-mib: got 600; must be at most 512"):
        package.check(items, 600, "")


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.binary(max_size=8), min_size=1, max_size=4))
def test_the_digest_is_that_of_content_and_names(tmp_path_factory, files):
    def written(contents):
        folder = tmp_path_factory.mktemp("d")
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return package.digest(
            [package.Item(folder / name, PurePosixPath(name), len(contents[name])) for name in contents]
        )

    assert written(files) == written(dict(reversed(files.items())))
    first = next(iter(files))
    assert written(files) != written({**files, first: files[first] + b"x"})
    assert written(files) != written({f"{name}z": content for name, content in files.items()})


def test_two_unpacked_packages_are_the_same_inside():
    base = "/tmp/ray/session_1/runtime_resources/working_dir_files"
    assert package.within_package(f"{base}/_ray_pkg_1/deep/space.yaml") == "deep/space.yaml"
    assert package.within_package("/data/space.yaml") == "/data/space.yaml"
    assert package.is_unpacked(Path(f"{base}/_ray_pkg_2/results")) and not package.is_unpacked(Path("/data/results"))


# --- on the cluster --------------------------------------------------------------------------------------------------

names = st.text(string.ascii_uppercase + "_", min_size=1, max_size=20)


@given(st.dictionaries(names, st.text(max_size=100), max_size=4), st.text(min_size=1, max_size=70))
def test_what_is_sealed_is_read_with_the_token_alone(values, token):
    text = job.sealed(values, token)
    assert job.unsealed(text, token) == values
    assert all(value not in text for value in values.values() if len(value) > 12)
    with pytest.raises(RuntimeError, match="another Ray token"):
        job.unsealed(text, token + "x")
    with pytest.raises(RuntimeError, match="no Ray token"):
        job.unsealed(text, None)


@given(st.binary(max_size=60))
def test_what_was_not_sealed_is_one_clear_error(junk):
    with pytest.raises(RuntimeError, match="sealed"):
        job.unsealed(junk.decode("latin-1"), "token")


def test_the_same_secret_looks_different_each_time():
    assert job.sealed({"A": "b"}, "token") != job.sealed({"A": "b"}, "token")


def test_the_token_is_found_where_ray_looks(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert job.token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("at home\n")
    assert job.token() == "at home"
    (tmp_path / "named").write_text("named")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert job.token() == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "itself")
    assert job.token() == "itself"


def test_data_that_came_stay_and_code_is_replaced(tmp_path):
    came, beside = tmp_path / "package" / "inputs", tmp_path / "results" / "inputs"
    for text in ("first", "second"):
        for name in ("0123/data/a.txt", "code/my.py"):
            (came / name).parent.mkdir(parents=True, exist_ok=True)
            (came / name).write_text(text)
        job.settle_inputs(came, beside)
    assert (beside / "0123/data/a.txt").read_text() == "first", "named by its content, so it is that already"
    assert (beside / "code/my.py").read_text() == "second"
    assert sorted(path.name for path in beside.iterdir()) == ["0123", "code"], "nothing half-written"


def test_a_cluster_that_lacks_what_it_needs_is_one_line(tmp_path):
    (tmp_path / f"{job.MODULE}.py").write_bytes(Path(job.__file__).read_bytes())

    def said(**about):
        whole = {"version": "0.0.1", "expects_installed": True, "folder": str(tmp_path / "r"), "arguments": [], **about}
        (tmp_path / job.DESCRIPTION).write_text(json.dumps(whole))
        return subprocess.run(
            [sys.executable, "-I", str(tmp_path / f"{job.MODULE}.py")], capture_output=True, text=True, cwd=tmp_path
        )

    wrong = said()
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1), wrong.stderr
    assert "must have tune-lora 0.0.1, as where it was submitted" in wrong.stderr
    (tmp_path / "file").write_text("")
    no_folder = said(expects_installed=False, folder=str(tmp_path / "file" / "below"))
    assert (no_folder.returncode, len(no_folder.stderr.splitlines())) == (2, 1), no_folder.stderr
    assert "error: results: cannot write to" in no_folder.stderr


# --- the log ---------------------------------------------------------------------------------------------------------

LOG = "Runtime env is setting up.\nRunning entrypoint for job a: b\nfirst\n\nsecond line\nRunning\nlast without an end"


@given(
    st.lists(st.lists(st.integers(0, len(LOG)), max_size=6), max_size=4), st.lists(st.integers(0, len(LOG)), max_size=6)
)
def test_each_line_is_written_once_however_the_connection_breaks(broken, whole):
    said: list[str] = []
    tail = Tail(said.append)
    for cuts in broken:  # each connection begins at the beginning and breaks somewhere
        feed(tail, LOG[: max(cuts, default=0)], cuts)
    feed(tail, LOG, whole)
    tail.end()
    assert said == ["first", "", "second line", "Running", "last without an end"]


def feed(tail, text, cuts):
    tail.begin()
    borders = [0, *sorted(cut for cut in cuts if cut <= len(text)), len(text)]
    for begin, end in itertools.pairwise(borders):
        tail.feed(text[begin:end])
