"""The commands about a study on a cluster. No logic; `tune_lora.cli` registers them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tune_lora.options import INTERRUPTED_CODE, Set, StudyFile
from tune_lora.study_commands import NTrials, TimeoutHours

if TYPE_CHECKING:
    from cluster.submit import Job, Jobs

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
Address = Annotated[
    str, typer.Option("--address", envvar=ADDRESS_VARIABLE, metavar="URL", help="Of the cluster's dashboard.")
]
What = Annotated[
    str, typer.Argument(metavar="STUDY-OR-JOB", help="A study file, the name of a study, or that of its job.")
]
MaxMib = Annotated[float, typer.Option("--max-mib", min=0.1, help="Largest package that is sent, in MiB.")]
_LIMIT = 100.0


def register(app: typer.Typer) -> None:
    """Makes these commands the program's."""
    for command in (submit, status, stop):
        app.command()(command)


def submit(
    study: StudyFile,
    address: Address = "http://127.0.0.1:8265",
    n_trials: NTrials = None,
    timeout_hours: TimeoutHours = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show its log until it ends.")] = True,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME", help="Send this variable, sealed; repeatable.")
    ] = None,
    shared: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="All nodes see it: nothing in it is sent; repeatable.")
    ] = None,
    max_mib: MaxMib = _LIMIT,
    settings: Set = None,
) -> None:
    """Run a study on a Ray cluster, or continue it there. Results must be an absolute path that all nodes see.

    Example: tune-lora submit study.yaml --address http://127.0.0.1:8265 --set results=/shared/results
    """
    from cluster.submit import Jobs
    from tune_lora import overrides, spec, submission

    asked = overrides.for_run(spec.load(study), settings or (), timeout_hours=timeout_hours)
    arguments = () if n_trials is None else ("--n-trials", n_trials)
    sent = submission.prepared(asked, arguments=arguments, shared=shared or (), env=env or (), max_mib=max_mib)
    console = Console()
    environment = sent.environment(console.width)
    jobs = Jobs(address)
    with submission.written_package(sent) as package:
        job = jobs.submit(package, asked.name, sent.folder, environment)
    for line in sent.told:
        typer.echo(line)
    typer.echo(f"job {job.id} on {jobs.address}; results in {sent.folder} there")
    if follow:
        _follow(jobs, job)
    else:
        typer.echo(_how_on(jobs, job))


def status(
    what: Annotated[
        str,
        typer.Argument(metavar="RESULTS-OR-JOB", help="A results folder, study file, or with --address study or job."),
    ],
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="Of a cluster's dashboard: ask there.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the log of its job until it ends.")] = False,
) -> None:
    """Show how a study stands, running or not: counts, the best, what runs, since when and where.

    Example: tune-lora status results/demo
    """
    if address is None:
        from tune_lora import running_view, sources

        folder = sources.results_folder(Path(what))
        record = sources.record_of(folder)
        Console().print(running_view.status(record, sources.planned_trials(record), folder))
        return
    jobs, job = _found(what, address)
    if follow:
        _follow(jobs, job)
        return
    typer.echo(f"job {job.id}: {job.status.lower()}, begun {_local(job.began)}")
    typer.echo(jobs.aside(job, shlex.join(["status", job.folder])))


def stop(what: What, address: Address = "http://127.0.0.1:8265") -> None:
    """Stop a study that was submitted. What was running keeps its checkpoints; submitted again, it goes on.

    Example: tune-lora stop demo --address http://127.0.0.1:8265
    """
    jobs, job = _found(what, address)
    if job.is_over:
        typer.echo(f"job {job.id} is over already ({job.status.lower()})")
        return
    ended = jobs.stop(job)
    typer.echo(f"job {ended.id}: {ended.status.lower()}")
    if not ended.is_over:
        raise typer.Exit(1)


def _found(what: str, address: str) -> tuple[Jobs, Job]:
    from cluster.submit import Jobs
    from tune_lora import spec

    jobs = Jobs(address)
    if not what.endswith((".yaml", ".yml")):
        return jobs, jobs.find(what)
    asked = spec.load(Path(what))
    # Where results were named on the command line alone, the file does not know the folder.
    return jobs, jobs.find(asked.name, str(asked.folder) if asked.folder.is_absolute() else None)


def _follow(jobs: Jobs, job: Job) -> None:
    try:
        ended = jobs.follow(job, typer.echo)
    except KeyboardInterrupt:
        typer.echo(f"\ndetached; job {job.id} goes on\n{_how_on(jobs, job)}")
        raise typer.Exit(INTERRUPTED_CODE) from None
    if ended.status != "SUCCEEDED":
        typer.echo(f"job {ended.id} {ended.status.lower()}; submitted again, the study goes on", err=True)
        raise typer.Exit(1)


def _how_on(jobs: Jobs, job: Job) -> str:
    to = f"{job.id} --address {jobs.address}"
    return f"follow it: tune-lora status {to} --follow\nlook at it: tune-lora status {to}\nstop it: tune-lora stop {to}"


def _local(seconds: float) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
