"""Bytes that coverage chooses, by atheris (``pip install "tune-lora[fuzz]"``), for what is read by Python alone:

    python -m benchmarks.fuzz.guided [KIND ...] [--runs N]

Each kind runs in a process of its own, since libFuzzer takes over the one it runs in. Begins with valid files, and
keeps every file that reached something new in the folder that `TUNE_LORA_FUZZ` names.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WORK = Path(os.environ.get("TUNE_LORA_FUZZ", Path(tempfile.gettempdir()) / "tune-lora-fuzz"))
OUTCOMES = "outcomes.json"
LONGEST = 6_000
"""Bytes of an input."""
MEMORY = 4_000
"""Megabytes of a process."""


@dataclass(frozen=True)
class Target:
    """A file of the door `kind`, beside the `others`, and what it is like when it is valid."""

    kind: str
    file: str
    valid: Callable[[], Sequence[bytes]]
    others: Callable[[], Mapping[str, bytes]] = dict


def targets() -> Mapping[str, Target]:
    """What can be guided."""
    from benchmarks.fuzz import samples, yaml_files

    pictures = {f"images/{name}": content for name, content in samples.pictures(3).items()}
    study = {"study.yaml": yaml_files.as_yaml(samples.CURVE)}
    spaces = [yaml_files.as_yaml(one) for one in (*samples.spaces(), samples.CURVE["space"])]
    return {
        "space": Target("space", "space.yaml", lambda: spaces),
        "study": Target("study", "study.yaml", lambda: list(study.values())),
        "configuration": Target(
            "configuration", "best_config.yaml", lambda: [yaml_files.as_yaml(samples.CURVE_CONFIG)], lambda: study
        ),
        "toml": Target("toml", "dataset.toml", lambda: [yaml_files.as_toml(samples.TOML).encode()], lambda: pictures),
        "captions": Target(
            "captions", "metadata.jsonl", lambda: [samples.lines(samples.METADATA[:3])], lambda: samples.pictures(3)
        ),
        "expression": Target("expression", "expression.txt", lambda: [b"a >= 64 and b / a < 0.5 or int(c) in [1, 2]"]),
        "table": Target("table", "table.csv", lambda: [samples.TABLE]),
        "text": Target("text", "text.jsonl", lambda: [samples.lines(rows) for rows in samples.ROWS]),
    }


def fuzz(name: str, runs: int) -> None:
    """Runs one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(
        include=["search_spaces", "trainables", "tune_lora", "yaml", "tomllib", "simpleeval"]
    ):
        from benchmarks.fuzz import samples
        from benchmarks.fuzz.judging import judge
        from benchmarks.fuzz.kinds import KINDS

    target, place = targets()[name], WORK / "guided" / name
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.valid()):
        (corpus / f"valid-{number}").write_bytes(content)
    outcomes: dict[str, int] = {}

    def one(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
            files = {**target.others(), target.file: data}
            outcome = judge(KINDS[target.kind].door, samples.write(Path(made).resolve(), files))
        outcomes[outcome.what] = outcomes.get(outcome.what, 0) + 1
        if outcome.is_bad:
            (place / f"bad-{outcomes[outcome.what]}-{outcome.what}").write_bytes(data)
            print(f"{name}: {outcome.what}: {outcome.said[-500:]}", file=sys.stderr)
        (place / OUTCOMES).write_text(json.dumps(outcomes))

    limits = [
        f"-runs={runs}",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={MEMORY}",
        "-timeout=0",
        "-seed=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


def run(name: str, runs: int) -> dict[str, int]:
    """What came of the inputs of one target, run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fuzz.guided", "--here", name, "--runs", str(runs)]
    with (WORK / f"guided-{name}.txt").open("w") as log:
        ended = subprocess.run(command, check=False, cwd=Path(__file__).parents[2], stderr=log)
    outcomes: dict[str, int] = json.loads((WORK / "guided" / name / OUTCOMES).read_text("utf-8"))
    return outcomes if ended.returncode == 0 else {**outcomes, "died": 1}


def is_installed() -> bool:
    """Whether atheris is here."""
    return importlib.util.find_spec("atheris") is not None


def main() -> None:
    """Runs the named targets, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kinds", nargs="*", default=[])
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--here", metavar="KIND", help="in this process")
    asked = parser.parse_args()
    if asked.here:
        fuzz(asked.here, asked.runs)
        return
    for name in asked.kinds or targets():
        print(name, run(name, asked.runs), flush=True)


if __name__ == "__main__":
    main()
