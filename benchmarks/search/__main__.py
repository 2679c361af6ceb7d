"""``python -m benchmarks.search run ...`` makes rows; ``report`` makes figures, tables and the picture from them; with
no command, the rows that are missing are run and reported.
"""

from __future__ import annotations

import argparse

from benchmarks import common
from benchmarks.search import picture, plan, registry, runs, tables
from benchmarks.search.catalogue import METHODS
from benchmarks.search.figures import FIGURES
from benchmarks.search.measures import Measures
from benchmarks.search.tasks import DEVELOPMENT, all_tasks
from benchmarks.search.variants import VARIANTS


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("run", help="runs what is missing and keeps a row of each run")
    one.add_argument("--methods", nargs="+", choices=METHODS, required=True)
    one.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"])
    one.add_argument("--tasks", nargs="+", default=["development"], help="development, held-out, registry, or names")
    one.add_argument("--seeds", type=_seeds, default=range(10, 20), help="such as 10-19; 0-9 are for designing")
    one.add_argument("--workers", type=int, default=4)
    one.add_argument("--budget", type=int, default=50, help="in full trainings")
    one.add_argument("--again", action="store_true", help="forgets these runs first: the method has changed")
    for each in (parser, one):
        each.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    commands.add_parser("report", help="makes figures, tables and the picture from the rows there are")
    told = parser.parse_args()
    if told.command == "run":
        tasks = _tasks(told.tasks)
        wanted = list(runs.keys(told.methods, told.variants, tasks, told.seeds, told.workers, told.budget))
        if told.again:
            runs.forget(set(wanted))
        runs.complete(wanted, jobs=told.jobs)
        return
    if told.command is None:
        runs.complete(plan.keys(plan.PLAN), plan.PLAN.folder, jobs=told.jobs)
    report(plan.PLAN)


def report(chosen: plan.Plan) -> None:
    """Writes the figures and, of the full plan, the tables and the picture of the docs."""
    found = Measures(runs.load(chosen.folder), chosen)
    common.write("search", [figure.result(found) for figure in FIGURES])
    if chosen is plan.FULL:
        tables.write(found)
        picture.draw(found)
    else:
        print("\n".join(tables.tables(found)))


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _tasks(told: list[str]) -> list[str]:
    if told == ["development"]:
        return list(DEVELOPMENT)
    if told == ["held-out"]:
        return [name for name in all_tasks() if name not in DEVELOPMENT]
    return list(registry.names()) if told == ["registry"] else told


if __name__ == "__main__":
    main()
