"""How long the report of 1,000 trials takes to open in Chromium, and how large it is.

Made-up records: 12 hyperparameters, 8 metrics at each of 8 epochs, a third of the trials pruned, some failed,
and a sheet of eight pictures from each trial at half of its horizon and at the end. The report is written as at the end
of a study. A fresh browser opens it at its figures; the clock runs from the navigation to the last of: the page's load
event, the first figure's points drawn and shown, the first row of the table.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks import common
from trainables.protocol import Cause
from tune_lora import report
from tune_lora.records import StudyRecord, TrialRecord

TRIALS = 100 if common.QUICK else 1_000
RUNS = 2 if common.QUICK else 5
EPOCHS = 8
NAMES = ("learning_rate", "text_encoder_lr", "weight_decay", "dropout", "noise_offset", "alpha_ratio")
CHOICES: dict[str, tuple[Any, ...]] = {
    "network_dim": (16, 32, 64, 128),
    "lr_scheduler": ("cosine", "polynomial", "constant"),
    "optimizer_type": ("AdamW", "Lion", "Prodigy"),
    "gradient_accumulation_steps": (1, 2, 4),
    "lr_warmup_steps": (50, 100, 150),
    "max_train_epochs": (EPOCHS,),
}
METRICS = ("score", "val_loss", "identity", "style_term", "lpips_term", "clip_term", "brightness", "contrast")
SHEET = (1_060, 620)
"""Pixels of a trial's sheet of eight pictures."""
# From the navigation: when the load event ended, and when the frame after the first figure and the first row was shown.
OPENED = """new Promise((done) => {
  const look = () => {
    const points = document.querySelector('[data-plot=history] .points path');
    const row = document.querySelector('#rows tbody a');
    const loaded = performance.getEntriesByType('navigation')[0].loadEventEnd;
    if (!points || !row || !loaded) return requestAnimationFrame(look);
    requestAnimationFrame(() => setTimeout(() => done([loaded / 1000, performance.now() / 1000])));
  };
  look();
})"""


def study(folder: Path) -> StudyRecord:
    """The study; its pictures are written below `folder`."""
    rng = np.random.default_rng(0)
    trials = tuple(_trial(number, rng, folder) for number in range(TRIALS))
    return StudyRecord(
        "thousand", "minimize", trials, stop_reason=f"all {TRIALS} trials have run", baseline={"score": 0.4}
    )


def _trial(number: int, rng: np.random.Generator, folder: Path) -> TrialRecord:
    params: dict[str, Any] = {name: float(10 ** rng.uniform(-5, -1)) for name in NAMES}
    params |= {name: choices[rng.integers(len(choices))] for name, choices in CHOICES.items()}
    worth = 0.12 + (np.log10(params["learning_rate"]) + 3) ** 2 / 20 + rng.normal(0, 0.01)
    kind = rng.choice(["complete", "pruned", "failed"], p=[0.6, 0.33, 0.07])
    last = {"complete": EPOCHS, "pruned": EPOCHS // 2, "failed": 2}[kind]
    history = {
        at: {name: float(worth + 0.2 / at + rng.normal(0, 0.005)) for name in METRICS} for at in range(1, last + 1)
    }
    curve = {at: told["score"] for at, told in history.items()}
    images = {at: {"all prompts": _sheet(number, at, rng, folder)} for at in (EPOCHS // 2, EPOCHS) if at <= last}
    trial = TrialRecord(number, kind, None, params, {**params, "network_alpha": 32}, curve=curve, history=history)
    known: dict[str, Any] = {"images": images, "metrics": history[last], "seconds": 60.0 * last}
    if kind == "failed":
        known |= {"cause": Cause.NAN_LOSS, "message": "loss became NaN at epoch 3"}
    return dataclasses.replace(trial, value=curve[last] if kind == "complete" else None, **known)


def _sheet(number: int, budget: int, rng: np.random.Generator, folder: Path) -> str:
    """Eight pictures with soft shapes and some grain, which compress as drawings of a small model do."""
    sheet = Image.new("RGB", SHEET, "white")
    pen = ImageDraw.Draw(sheet)
    for place in range(8):
        x, y = 10 + place % 4 * 262, 10 + place // 4 * 300
        grain = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        sheet.paste(Image.fromarray(grain).resize((250, 250), Image.Resampling.BICUBIC), (x, y))
        pen.ellipse((x + 40, y + 40, x + 210, y + 210), fill=tuple(int(one) for one in rng.integers(0, 255, 3)))
    path = folder / "trials" / str(number) / f"{budget}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=90)
    return str(path.relative_to(folder))


def _opened(path: Path) -> tuple[float, float]:
    """Seconds until loaded, and until the first figure and the table are shown."""
    from tests import chromium

    with chromium.started() as browser:
        page = browser.page()
        page.screen(1280, 900)
        page.open(path.as_uri() + "#figures")
        loaded, shown = page.js(OPENED)
        assert page.errors == [], page.errors
        return loaded, max(loaded, shown)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record, began = study(folder), time.perf_counter()
        path = report.write(record, folder)
        written, size = time.perf_counter() - began, path.stat().st_size / 1e6
        seconds = [_opened(path) for _ in range(RUNS)]
    print(json.dumps({"opened": seconds, "written": written, "megabytes": size}))
    loaded, shown = (statistics.median(one[at] for one in seconds) for at in (0, 1))
    common.write(
        "report_1000",
        [
            common.result(
                "report_1000_seconds",
                measured=round(shown, 2),
                goal="< 2",
                unit="s from the navigation to load, first figure and table",
                runs=RUNS,
                note=f"{TRIALS} trials, a fresh headless Chromium each time, no GPU; load event after {loaded:.2f} s; "
                f"each {', '.join(f'{one[1]:.2f}' for one in seconds)}; written in {written:.0f} s",
            ),
            common.result(
                "report_1000_megabytes",
                measured=round(size, 1),
                goal="< 15",
                unit="MB",
                runs=1,
                note=f"{TRIALS} trials, sheets of pictures of {SHEET[0]} x {SHEET[1]} pixels; 1.2 MB of it plotly.js",
            ),
        ],
    )


if __name__ == "__main__":
    main()
