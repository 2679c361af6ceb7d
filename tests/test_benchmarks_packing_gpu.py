"""The benchmark of packs on a GPU, rehearsed without one."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import common, packing_gpu, packing_gpu_parts
from benchmarks.packing_gpu import Kept
from benchmarks.packing_gpu_figures import figures
from benchmarks.packing_gpu_parts import Setup
from benchmarks.together import Failed


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return packing_gpu.prepare(tmp_path / "place", "cpu")


def test_without_a_gpu_one_line_says_so_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    packing_gpu.main(["--place", str(tmp_path / "place")])
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_part_is_both_measured_and_rehearsed() -> None:
    measured, rehearsed = (
        {words[0] for words in plan.values()} for plan in (packing_gpu.ON_GPU, packing_gpu.REHEARSED)
    )
    assert measured == rehearsed == {"peak", "wide", "flops", "pack", "compiled", "processes", "mps"}
    assert {f"pack batch {batch} of {count}" for batch in (1, 4) for count in (1, 2, 4, 8, 16)} <= {*packing_gpu.ON_GPU}


def test_parts_that_were_measured_are_not_measured_again(tmp_path: Path, setup: Setup) -> None:
    path = tmp_path / "parts.jsonl"
    Kept(path, setup).keep("peak", {"flops": 1.0})
    other = Setup("another", setup.base, setup.images, side=64, runs=1, steps=1, matrix=64)
    assert Kept(path, other).found == {}
    again = Kept(path, setup)
    packing_gpu.measure({"peak": ("no such part",)}, again, setup, {}, only="")
    assert again.found == {"peak": {"flops": 1.0}}


def test_what_failed_is_kept_and_no_more_of_it_is_tried(tmp_path: Path, setup: Setup) -> None:
    kept = Kept(tmp_path / "parts.jsonl", setup)
    kept.keep("pack batch 1 of 2", {"failed": "out of memory"})
    plan = {"pack batch 1 of 4": ("no such part",), "pack batch 4 of 2": ("no such part",)}
    packing_gpu.measure(plan, kept, setup, {"CUDA_VISIBLE_DEVICES": ""}, only="")
    assert set(kept.found) == {"pack batch 1 of 2", "pack batch 4 of 2"}
    assert "no such part" in Kept(tmp_path / "parts.jsonl", setup).found["pack batch 4 of 2"]["failed"]


def test_mps_is_started_in_folders_of_its_own_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = tmp_path / "heard.txt"
    control = tmp_path / packing_gpu.MPS
    control.write_text(f'#!/bin/sh\necho "$* in $CUDA_MPS_PIPE_DIRECTORY" >> {heard}\n[ "$1" ] || cat >> {heard}\n')
    control.chmod(control.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with packing_gpu.mps() as places:
        pipe = places["CUDA_MPS_PIPE_DIRECTORY"]
        assert all(Path(place).is_dir() for place in places.values())
    assert not Path(pipe).exists()
    assert heard.read_text().splitlines() == [f"-d in {pipe}", f" in {pipe}", "quit"]


PARTS: dict[str, dict[str, Any]] = {
    "peak": {"flops": 100e12},
    "flops batch 1": {"flops": 2e12},
    "wide": {"alone": [2.0, 2.0], "batch": 16, "peak": 0},
    "pack batch 1 of 1": {"alone": [0.1, 0.1], "packed": [0.1, 0.1], "peak": 2000 * 2**20, "used": 0},
    "pack batch 1 of 4": {"alone": [0.4, 0.8], "packed": [0.1, 0.1], "peak": 2300 * 2**20, "used": 0},
    "pack batch 1 of 8": {"failed": "out_of_memory: 16 GiB"},
    "processes batch 1 of 1": {"rates": [10.0], "used": 3000 * 2**20},
    "processes batch 1 of 2": {"rates": [16.0], "used": 6000 * 2**20},
    "compiled batch 1 default": {"alone": [0.1], "compiled": [0.05]},
    "compiled batch 1 reduce-overhead": {"failed": "not supported"},
}


def test_figures_follow_from_what_was_measured() -> None:
    found = {one["name"]: one for one in figures(PARTS, "here")}
    measured = {name: one["measured"] for name, one in found.items()}
    assert measured == {
        "packed_gpu": 6.0,  # the median of 4 and 8
        "packed_gpu_vs_processes": 2.5,  # 40 samples/s against 16
        "packed_gpu_vs_compiled": 3.0,  # which is twice as fast as eager
        "packed_gpu_memory": 100.0,
        "packed_gpu_peak_share": 0.8,  # 40 of the 50 samples/s that the peak allows
        "packed_gpu_roofline": pytest.approx(50 / alone_rate(), abs=1e-3),
    }
    assert found["packed_gpu"]["ok"] is True
    assert "pack batch 1 of 8 (out_of_memory: 16 GiB)" in found["packed_gpu"]["note"]
    assert "3000 MiB of the device" in found["packed_gpu_memory"]["note"]


def alone_rate() -> float:
    return 1 / ((0.1 + 0.6 / 4) / 2)


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert figures({"peak": PARTS["peak"], "pack batch 4 of 1": {"failed": "out_of_memory"}}, "here") == []


def test_parts_run_on_a_cpu(setup: Setup) -> None:
    found = packing_gpu_parts.pack(setup, 1, 2)
    assert len(found["alone"]) == len(found["packed"]) == setup.runs
    assert found["peak"] > 0
    assert packing_gpu_parts.flops(setup, 1)["flops"] > 1e9
    assert packing_gpu_parts.compiled(setup, 1, "aot_eager")["compiled"][0] > 0


@pytest.mark.slow  # each part loads torch and the base in a process of its own
def test_the_rehearsal_measures_every_part_and_writes_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    arguments = ["--device", "cpu", "--place", str(tmp_path / "place")]
    packing_gpu.main(arguments)
    kept = (tmp_path / "place" / "cpu" / "parts.jsonl").read_text().splitlines()
    found = {row["part"]: row["found"] for row in map(json.loads, kept)}
    assert set(found) == {part for part, words in packing_gpu.REHEARSED.items() if words[0] != "mps"}
    assert [part for part, one in found.items() if "failed" in one] == []
    said = capsys.readouterr().out
    for name in ("", "_vs_processes", "_vs_compiled", "_memory", "_peak_share", "_roofline"):
        assert f"rehearsed, not written: packed_gpu{name} " in said
    packing_gpu.main(arguments)
    assert (tmp_path / "place" / "cpu" / "parts.jsonl").read_text().splitlines() == kept
    assert not (tmp_path / "results").exists()


def test_a_part_that_breaks_says_what_broke(setup: Setup) -> None:
    with pytest.raises(Failed, match="KeyError"):
        packing_gpu._in_a_process(("no such part",), setup, {"CUDA_VISIBLE_DEVICES": ""})
