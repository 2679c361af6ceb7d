"""Processes of a node share one copy of a base's weights, whatever it was loaded from, and nobody writes to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.trainables.lora import ldm_layout, tiny_bases
from trainables.lora import base_configs

if not Path("/proc/self/smaps").exists():
    pytest.skip("needs Linux's /proc/self/smaps", allow_module_level=True)

WORKER = """
import sys, json, torch
from pathlib import Path
torch.set_num_threads(1)
from trainables.lora import base
configs, source, dtype = Path(sys.argv[1]), sys.argv[2], getattr(torch, sys.argv[3])
base.config_folder = lambda name: configs
loaded = base.load(source, torch.device("cpu"), dtype=dtype)
with torch.no_grad():
    states = loaded.condition(["a picture"]).states
    loaded.unet(torch.randn(1, 4, 8, 8, dtype=dtype), torch.tensor([3]), states)
    loaded.vae.encode(torch.zeros(1, 3, 64, 64))
    models = [*loaded.models.values(), loaded.vae]
    weights = [tensor for model in models for tensor in model.parameters()]
    touched = sum(float(tensor.sum()) for tensor in weights)
print("ready", sum(tensor.nbytes for tensor in weights), flush=True)
sys.stdin.readline()
found = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty", "Anonymous"), 0)
inside = False
for line in open("/proc/self/smaps"):
    name, _, rest = line.partition(":")
    if "-" in name.split()[0]:
        inside = line.rstrip().endswith(".safetensors")
    elif inside and name in found:
        found[name] += int(rest.split()[0]) * 1024
print(json.dumps(found), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def medium(tmp_path_factory) -> dict[str, Path]:
    """A pipeline of about 45 million weights: its configuration, its folder, and a half-precision checkpoint."""
    root = tmp_path_factory.mktemp("medium")
    full = tiny_bases.config("sd15")
    wide = {"block_out_channels": (64, 128, 256, 256), "norm_num_groups": 8}
    pipeline = base_configs.Pipeline(full.name, full.scheduler, {**full.unet, **wide}, full.vae, full.text_encoders,
                                     full.padding)  # fmt: skip
    config = root / "config"
    config.mkdir()
    base_configs.write_config(pipeline, config)
    made = tiny_bases.pipeline(config)
    made.save_pretrained(root / "folder")
    weights = ldm_layout.checkpoint(made.unet, made.vae, made.text_encoder)
    save_file({name: value.half().contiguous() for name, value in weights.items()}, root / "file.safetensors")
    return {"config": config, "folder": root / "folder", "file": root / "file.safetensors"}


def two_processes(arguments: list[str], cache: Path) -> tuple[int, list[dict[str, int]]]:
    """Bytes of the weights, and what each of two processes has of the files while both are alive."""
    environment = os.environ | {"TUNE_LORA_CACHE": str(cache)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(2)
    ]
    try:
        sizes = [int(worker.stdout.readline().split()[1]) for worker in workers]
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        found = [json.loads(worker.stdout.readline()) for worker in workers]
    finally:
        for worker in workers:
            worker.communicate("\n")
    assert sizes[0] == sizes[1]
    return sizes[0], found


@pytest.mark.parametrize(("source", "dtype"), [("folder", "float32"), ("file", "bfloat16")])
def test_two_processes_cost_one_copy(source, dtype, medium, tmp_path):
    size, found = two_processes([str(medium["config"]), str(medium[source]), dtype], tmp_path)
    for one in found:
        assert one["Rss"] >= 0.98 * size  # all weights are there, and they are the files' own pages
        assert one["Anonymous"] == 0  # none was copied, for none was written to
        assert one["Private_Clean"] + one["Private_Dirty"] < 0.02 * size
    assert sum(one["Pss"] for one in found) < 1.1 * size
    in_place = source == "folder" and dtype == "float32"
    assert (tmp_path / "bases").exists() is not in_place  # what lies there as it is needed is not stored again


def test_writing_to_a_weight_changes_no_file(medium, tmp_path, monkeypatch):
    from trainables.lora import base

    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path))
    file = next((medium["folder"] / "unet").glob("*.safetensors"))
    before = file.read_bytes()
    loaded = base.load(str(medium["folder"]), torch.device("cpu"))
    with torch.no_grad():
        loaded.unet.conv_in.weight.zero_()
    assert file.read_bytes() == before
