"""What faults cost a study: ten kinds, each really made twenty times at random moments, on a real cluster of a head and
two worker nodes whose machines are network namespaces.

Runs are kept in ``$TUNE_LORA_FAULTS`` (default: ``build/faults`` of the repository), a line each; one that is there is
not run again, so that it can be stopped and goes on. ``--kinds a b`` runs those alone, ``--runs N`` so many of each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.faults.lab import KINDS, Lab, NotMade, impossible

PLACE = Path(os.environ.get("TUNE_LORA_FAULTS", Path(__file__).parents[1] / "build" / "faults"))
RUNS = 2 if common.QUICK else 20
BAD = ("lost", "doubled", "hung")


def kept(place: Path = PLACE) -> list[dict[str, Any]]:
    """All runs so far."""
    lines = [path.read_text("utf-8").splitlines() for path in sorted(place.glob("*.jsonl"))]
    return [json.loads(line) for some in lines for line in some]


def results(runs: Sequence[Mapping[str, Any]], not_run: Mapping[str, str]) -> list[dict[str, Any]]:
    """The figures of some runs."""
    bad = sum(len(one[what]) for one in runs for what in BAD)
    counts = {kind: [one for one in runs if one["kind"] == kind] for kind in KINDS}
    said = [
        f"{kind} {len(of)} ({', '.join(f'{sum(len(one[what]) for one in of)} {what}' for what in BAD)})"
        for kind, of in counts.items()
        if of
    ]
    left_out = [f"not run: {kind} ({why})" for kind, why in not_run.items()]
    left_out.append("of every fifth run the driver ended by itself, of the others it was ended when all trials had run")
    too_often = sum(one["too_often"] for one in runs)
    worst = max((one["repeated"] for one in runs if one["kind"] != "checkpoint_corrupted"), default=None)
    return [
        common.result(
            "faults_lost", measured=float(bad) if runs else None, goal="<= 0", unit="results lost, doubled or hung",
            runs=len(runs), note="; ".join([*said, *left_out]),
        ),
        common.result(
            "faults_repeated_epochs", measured=None if worst is None else float(worst), goal="<= 1",
            unit="epochs of a trial trained again, at most", runs=len(runs),
            note=f"where the newest checkpoint was damaged {_most(counts['checkpoint_corrupted'])}, of 2 allowed; "
            f"{too_often} runs above what is allowed",
        ),
    ]  # fmt: skip


def _most(runs: Iterable[Mapping[str, Any]]) -> str:
    most = max((one["repeated"] for one in runs), default=None)
    return "not measured" if most is None else str(most)


def measure(kinds: Sequence[str], runs: int, place: Path = PLACE) -> dict[str, str]:
    """Makes the faults that are not kept yet, one of each kind after the other; returns why kinds were left out."""
    not_run = {kind: why for kind in kinds if (why := impossible(kind))}
    place.mkdir(parents=True, exist_ok=True)
    known = {(one["kind"], one["seed"]) for one in kept(place)}
    plan = [(kind, seed) for seed in range(runs) for kind in kinds if kind not in not_run and (kind, seed) not in known]
    if plan:
        with Lab(tuple(dict.fromkeys(kind for kind, _ in plan))) as lab:
            for kind, seed in plan:
                _one(lab, kind, seed, place / f"{'-'.join(kinds) if len(kinds) < len(KINDS) else 'all'}.jsonl")
    return not_run


def _one(lab: Lab, kind: str, seed: int, file: Path) -> None:
    try:
        told = lab.run(kind, seed)
    except NotMade as error:
        print(error, flush=True)
        return
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(told) + "\n")
    bad = [line for what in BAD for line in told[what]]
    print(f"{kind} {seed}: {told['seconds']} s, codes {told['codes']}, repeated {told['repeated']} {bad}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--runs", type=int, default=RUNS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # namespaces, mounts and clusters are taken away
    not_run = measure(asked.kinds, asked.runs)
    common.write("faults_lost", results(kept(), not_run))


if __name__ == "__main__":
    main()
