"""Packs on a GPU: Stable Diffusion 1.5's shapes with random weights, 512 px, bf16, one to sixteen trials.

What is asked: samples per second of a pack against its trials one after another, against as many processes as fit on
the device (with and without MPS), and against a trial under torch.compile and CUDA graphs; memory per trial; the share
of the device's matrix peak, and how much of the goal that peak allows at all.

Every part runs in a process of its own and is kept in a file as soon as it is measured: stopped and started again, the
benchmark goes on where it was. ``--only pack`` measures parts whose name begins so, ``--place FOLDER`` keeps base and
parts elsewhere than in ``build/packing_gpu``. ``--device cpu`` rehearses all of it on the small base, and writes no
figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import common, together
from benchmarks.packing_gpu_figures import figures
from benchmarks.packing_gpu_parts import RANKS, Setup
from benchmarks.together import FAILED

PLACE = Path(__file__).parents[1] / "build" / "packing_gpu"
PARTS_MODULE = "benchmarks.packing_gpu_parts"
PART_SECONDS = 1800
MPS = "nvidia-cuda-mps-control"

Plan = Mapping[str, tuple[str, ...]]
"""Parts by name, each the words that `packing_gpu_parts` or this file measures it by."""


def plan(batches: Sequence[int], counts: Sequence[int], hows: Sequence[str], wide: int) -> Plan:
    """All parts, in the order in which they are measured; `counts` are sizes of packs, and numbers of processes."""
    found: dict[str, tuple[str, ...]] = {"peak": ("peak",), "wide": ("wide", str(wide))}
    for batch in map(str, batches):
        found[f"flops batch {batch}"] = ("flops", batch)
        found |= {f"pack batch {batch} of {count}": ("pack", batch, str(count)) for count in counts}
        found |= {f"compiled batch {batch} {how}": ("compiled", batch, how) for how in hows}
        for kind in ("processes", "mps"):
            found |= {f"{kind} batch {batch} of {count}": (kind, batch, str(count)) for count in counts}
    return found


ON_GPU = plan((1, 4), (1, 2, 4, 8, 16), ("default", "reduce-overhead"), 16)
REHEARSED = plan((1,), (1, 2), ("aot_eager",), 2)


class Kept:
    """What was measured, by the name of its part, in a file of lines. What another setup gave does not count."""

    def __init__(self, path: Path, setup: Setup) -> None:
        self._path, self._setup = path, setup.text()
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
        self.found: dict[str, Any] = {row["part"]: row["found"] for row in rows if row["setup"] == self._setup}

    def keep(self, part: str, found: Mapping[str, Any]) -> None:
        """Writes it at once."""
        self.found[part] = dict(found)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, "setup": self._setup, "found": self.found[part]}) + "\n")


def prepare(place: Path, device: str) -> Setup:
    """Base and images, made once."""
    from trainables import demo_character

    place.mkdir(parents=True, exist_ok=True)
    images, base = place / "images", "tiny-sd"
    if not images.is_dir():
        demo_character.write_dataset(images, count=8)
    if device == "cpu":
        return Setup("cpu", base, str(images), side=64, runs=1, steps=1, matrix=64)
    if not (folder := place / "base").is_dir():
        from benchmarks.gpu_image_rate import random_pipeline

        random_pipeline(place / "base.part").rename(folder)
    runs, steps = (1, 5) if common.QUICK else (3, 20)
    return Setup(_device_name(), str(folder), str(images), side=512, runs=runs, steps=steps, matrix=8192)


def _device_name() -> str:
    """Asked in a process of its own: this one is to hold nothing of the device."""
    asked = "import torch; print(torch.cuda.get_device_name())"
    return subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


def measure(parts: Plan, kept: Kept, setup: Setup, more: Mapping[str, str], only: str) -> None:
    """Measures every part that is not there yet. Where so many processes or so large a pack did not work, more of them
    are not tried."""
    for part, words in parts.items():
        if part in kept.found or not part.startswith(only):
            continue
        name = part.rsplit(" of ", 1)[0]
        smaller = [found for other, found in kept.found.items() if other.rsplit(" of ", 1)[0] == name]
        if failed := next((found["failed"] for found in smaller if "failed" in found), None):
            print(f"{part}: left out, since fewer failed ({failed})", flush=True)
            continue
        try:
            kept.keep(part, _measured(words, setup, more))
        except together.Failed as error:
            kept.keep(part, {"failed": str(error)})
        print(f"{part}: {kept.found[part]}", flush=True)


def _possible(parts: Plan) -> Plan:
    """Those for which there is what they need. What is missing is not kept: it may be there the next time."""
    if shutil.which(MPS) is not None:
        return parts
    print(f"{MPS} is not installed: processes are measured without it alone", flush=True)
    return {part: words for part, words in parts.items() if words[0] != "mps"}


def _measured(words: Sequence[str], setup: Setup, more: Mapping[str, str]) -> Mapping[str, Any]:
    kind, *rest = words
    if kind not in ("processes", "mps"):
        return _in_a_process(words, setup, more)
    batch, count = map(int, rest)
    if kind == "processes":
        return _side_by_side(batch, count, setup, more)
    with mps() as places:
        return _side_by_side(batch, count, setup, {**more, **places})


def _in_a_process(words: Sequence[str], setup: Setup, more: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", PARTS_MODULE, setup.text(), *words]
    root, environment = Path(__file__).parents[1], {**os.environ, **more}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=root, env=environment, timeout=PART_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise together.Failed(f"took more than {PART_SECONDS} s") from None
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if last.startswith(FAILED):
        raise together.Failed(last.removeprefix(FAILED))
    if done.returncode:
        raise together.Failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    found: dict[str, Any] = json.loads(last)
    return found


def _side_by_side(batch: int, count: int, setup: Setup, more: Mapping[str, str]) -> dict[str, Any]:
    """Samples per second of so many processes, each with a trial; what they hold of the device together."""
    rates, used = [], 0
    with ExitStack() as stack:
        command = [PARTS_MODULE, setup.text(), "worker", str(batch)]
        started = [stack.enter_context(together.started([*command, str(number)], more)) for number in range(count)]
        for _ in range(setup.runs):
            worked = together.measured(started, setup.steps)
            rates.append(together.rate([batch * setup.steps] * count, worked))
            used = max(used, *(one.used for one in worked))
    return {"rates": rates, "used": used}


@contextmanager
def mps() -> Iterator[dict[str, str]]:
    """CUDA's service that lets processes share a device at the same time, with folders of its own; what a process that
    is to use it has in its environment.

    Raises:
        Failed: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for place in places.values():
            Path(place).mkdir()
        environment = {**os.environ, **places}
        begun = subprocess.run([MPS, "-d"], check=False, capture_output=True, text=True, env=environment)
        if begun.returncode:
            raise together.Failed(f"{MPS} did not start: {(begun.stderr or begun.stdout).strip()}")
        try:
            yield places
        finally:
            subprocess.run([MPS], check=False, input="quit\n", text=True, env=environment, timeout=60)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    asked.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked.add_argument("--only", default="", help="parts whose name begins so")
    asked.add_argument("--place", type=Path, default=Path(os.environ.get("TUNE_LORA_PACKING_GPU", PLACE)))
    chosen = asked.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("packing_gpu: there is no CUDA device here; nothing was measured and nothing written (see --device cpu)")
        return
    setup = prepare(chosen.place / chosen.device, chosen.device)
    more = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if chosen.device == "cpu" else {}
    kept = Kept(chosen.place / chosen.device / "parts.jsonl", setup)
    measure(_possible(ON_GPU if chosen.device == "cuda" else REHEARSED), kept, setup, more, chosen.only)
    base = "SD 1.5 shapes, random weights" if chosen.device == "cuda" else setup.base
    where = f"{base}, {setup.side} px, bf16, ranks {', '.join(map(str, RANKS))} in turn"
    found = figures(kept.found, where)
    if chosen.device == "cuda":
        common.write("packing_gpu", found)
    for one in found if chosen.device == "cpu" else ():
        print(f"rehearsed, not written: {one['name']} {one['measured']} {one['unit']}: {one['note']}")


if __name__ == "__main__":
    main()
