"""Files made to do harm: one clear line or a safe result, and nothing of theirs is run."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from search_spaces.documents import MOST_NODES
from tune_lora import report, sources, store
from tune_lora import spec as specs
from tune_lora.errors import InputError

ROOT = Path(__file__).parent.parent


class Payload:
    """Unpickled, it writes a file: what a real one would do is anything."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "was run")


# --- checkpoints and weights -----------------------------------------------------------------------------------------


def _engine(path: Path) -> None:
    from trainables.lora.engine import CHECKPOINT, LoraEngine

    path.rename(path.with_name(CHECKPOINT))
    LoraEngine([]).restore(path.parent)


def _backbone(path: Path) -> None:
    from trainables.classification.backbones import load_state

    load_state(path)


def _clip(path: Path) -> None:
    from trainables.evaluation.clip_files import read_vit_b32

    read_vit_b32(path)


def _alexnet(path: Path) -> None:
    from trainables.evaluation import lpips_diversity

    lpips_diversity._load_backbone(lpips_diversity._random_network(), path)


@pytest.mark.parametrize("load", [_engine, _backbone, _clip, _alexnet])
def test_a_pickle_among_weights_is_not_run(load: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"lanes": Payload(mark), "state_dict": Payload(mark)}, tmp_path / "weights.pt")
    with pytest.raises(Exception, match=r"(?i)weights|read") as caught:
        load(tmp_path / "weights.pt")
    assert not mark.exists()
    assert load is _engine or isinstance(caught.value, InputError)


def test_a_pickle_among_the_parts_of_a_base_is_not_run(tmp_path: Path) -> None:
    from trainables.lora.base_weights import _read_from_folder
    from trainables.tiny_sd import WEIGHTS

    for part, name in (("unet", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")):
        (tmp_path / part).mkdir()
        shutil.copy(WEIGHTS / part / "config.json", tmp_path / part)
        torch.save({"weight": Payload(tmp_path / "mark")}, tmp_path / part / name)
        with pytest.raises(Exception, match=r"(?i)unpickl|load|weights"):
            _read_from_folder(part, tmp_path, tmp_path, torch.float32)
    assert not (tmp_path / "mark").exists()


def test_the_python_of_a_language_model_is_not_run(tmp_path: Path) -> None:
    from trainables.lora.text.base import load

    mark = tmp_path / "mark"
    (tmp_path / "modeling.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Model: ...\nclass Config: ...\n")
    auto = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": auto}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError):
        load(str(tmp_path))
    assert not mark.exists()


# --- paths out of data -----------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that no dataset may show."""
    folder = tmp_path / "private"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "passport.png")
    (folder / "key.txt").write_text("-----BEGIN PRIVATE KEY-----")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir()
    Image.new("RGB", (64, 64), "blue").save(folder / "a.png")
    (folder / "a.txt").write_text("a blue square")
    return folder


def read(folder: Path) -> tuple[list[str], list[str]]:
    """Captions and mistakes of a folder."""
    from trainables.lora.dataset_settings import Captions
    from trainables.lora.image_folder import read_folder

    mistakes: list[str] = []
    return [one.caption for one in read_folder(folder, Captions(), mistakes)], mistakes


def test_a_link_out_of_a_dataset_is_not_followed(dataset: Path, secret: Path) -> None:
    (dataset / "b.png").symlink_to(secret / "passport.png")
    (dataset / "b.txt").write_text("a passport")
    shutil.copy(dataset / "a.png", dataset / "c.png")
    (dataset / "c.txt").symlink_to(secret / "key.txt")
    captions, mistakes = read(dataset)
    assert captions == ["a blue square"]
    assert len(mistakes) == 2
    assert all("is a link that leaves the dataset's folder" in mistake for mistake in mistakes)


def test_a_link_inside_a_dataset_is_followed(dataset: Path) -> None:
    (dataset / "b.png").symlink_to("a.png")
    (dataset / "b.txt").symlink_to(dataset / "a.txt")
    assert read(dataset) == (["a blue square"] * 2, [])


@pytest.mark.parametrize("name", ["../private/passport.png", "{secret}/passport.png", "link/passport.png", "b.png"])
def test_metadata_names_no_file_outside(name: str, dataset: Path, secret: Path) -> None:
    (dataset / "link").symlink_to(secret)
    (dataset / "b.png").symlink_to(secret / "passport.png")
    entry = {"file_name": name.format(secret=secret), "text": "x"}
    (dataset / "metadata.jsonl").write_text(json.dumps(entry) + "\n")
    captions, mistakes = read(dataset)
    assert captions == []
    assert len(mistakes) == 1 and "outside the dataset's folder" in mistakes[0]


def test_metadata_that_is_a_link_out_is_not_read(dataset: Path, secret: Path) -> None:
    (dataset / "metadata.jsonl").symlink_to(secret / "key.txt")
    captions, mistakes = read(dataset)
    assert captions == [] and len(mistakes) == 1
    assert "PRIVATE KEY" not in mistakes[0]


@pytest.mark.parametrize("name", ["../private/passport.png", "{secret}/passport.png", "b.png"])
@pytest.mark.parametrize("listing", ["metadata.jsonl", "rows.csv"])
def test_a_listing_of_labels_names_no_file_outside(name: str, listing: str, dataset: Path, secret: Path) -> None:
    from trainables.classification.listing import rows_of
    from trainables.classification.source import DataSource

    (dataset / "b.png").symlink_to(secret / "passport.png")
    name = name.format(secret=secret)
    entry = json.dumps({"file_name": name, "label": "x"}) if listing.endswith("l") else f"file_name,label\n{name},x"
    (dataset / listing).write_text(entry + "\n")
    rows = rows_of(DataSource(dataset), dataset, images=True, texts=False)
    assert not rows.good
    assert len(rows.bad) == 1 and "outside" in rows.bad[0]


def test_a_folder_of_classes_shows_no_file_outside(dataset: Path, secret: Path) -> None:
    from trainables.classification.listing import rows_of
    from trainables.classification.source import DataSource

    (dataset / "cats").mkdir()
    shutil.move(dataset / "a.png", dataset / "cats")
    (dataset / "cats" / "b.png").symlink_to(secret / "passport.png")
    rows = rows_of(DataSource(dataset), dataset, images=True, texts=False)
    assert [row.image for row in rows.good] == [dataset / "cats" / "a.png"]
    assert len(rows.bad) == 1 and "is a link that leaves" in rows.bad[0]


# --- study files and databases ---------------------------------------------------------------------------------------


def tune_lora(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    command = [sys.executable, "-m", "tune_lora.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, preexec_fn=bound
    )


def bomb(levels: int = 30) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("command", [["validate"], ["sample"], ["run"]])
def test_aliases_of_aliases_do_not_eat_the_memory(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(bomb() + "name: x\nspace: lora_tiny\n")
    ended = tune_lora(*command, "bomb.yaml", folder=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert f"stand for more than {MOST_NODES} values" in ended.stderr


@pytest.mark.parametrize("name", ["../evil", "a/b", "/etc/evil", "..", "a\\b", "a b", "", "x" * 200, "a\nb"])
def test_a_study_has_the_name_of_a_folder(name: str) -> None:
    with pytest.raises(InputError, match="name: got"):
        specs.from_mapping({"name": name, "trainer": "curve", "space": "lora_tiny"}, "study.yaml")


def test_tags_of_yaml_make_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "s.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {mark}']\n")
    for read_file in (specs.load, sources.configuration):
        with pytest.raises(InputError, match="is not YAML"):
            read_file(tmp_path / "s.yaml")
    assert not mark.exists()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A results folder as somebody else may have made it: its study names a trainer, and pictures elsewhere."""
    folder = tmp_path / "results" / "gift"
    folder.mkdir(parents=True)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "passport.png")
    study = store.open_study(store.sqlite_url(folder), "gift", "minimize")
    space = {"parameters": {"rate": {"type": "uniform", "low": 0.0, "high": 1.0}}}
    mapping = {"name": "gift", "trainable": f"{folder}/evil.py:train", "space": space}
    study.set_user_attr(store.SPEC, mapping)
    (folder / "study.yaml").write_text(yaml.safe_dump(mapping))
    trial = study.ask()
    trial.suggest_float("rate", 0, 1)
    trial.set_user_attr(f"{store.IMAGES_PREFIX}1", {"<script>alert(1)</script>": "../../passport.png"})
    trial.set_user_attr(store.HISTORY_PREFIX + "1", {"val_loss": 0.5})
    study.tell(trial, 0.5)
    study.set_user_attr(store.BASE_IMAGES, {"base": "../../passport.png", "reference": str(tmp_path / "passport.png")})
    return folder


def test_looking_at_a_study_runs_nothing_of_it(foreign: Path, tmp_path: Path) -> None:
    for command in ("status", "top", "plot"):
        ended = tune_lora(command, str(foreign), folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "mark").exists()


def test_a_report_shows_nothing_from_outside_its_folder(foreign: Path) -> None:
    page = report.render(store.load(foreign), foreign)
    assert "data:image/webp" not in page  # as pictures of trials stand in it
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_pictures_side_by_side_show_nothing_from_outside(foreign: Path) -> None:
    from tune_lora import figures

    assert figures.comparison(store.load(foreign), foreign) is None
