"""One trial on several devices: processes of one node that train it together, each with its part of every micro-batch.

The batch size of a configuration stays that of the whole trial, so that a study's trials compare however many devices
each was given. The processes are torch.distributed's (nccl on GPUs, gloo on CPUs). They are started once and serve
trial after trial: a trial is a generator that pauses, which no launcher of whole scripts could follow.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from trainables.protocol import Cause, Report, Trainer, TrialContext, TrialFailure
from trainables.wrapped import Wrapped

PATIENCE_SECONDS = 10.0
"""How long a process has to say why it ended."""
_LOST = ("Connection", "connection", "NCCL", "ProcessGroup", "gloo", "Gloo")
"""How torch.distributed says that a member of the group is gone."""
_group: _Group | None = None
"""Of this process, kept between trials."""


@dataclass(frozen=True)
class DataParallel(Wrapped):
    """A trainer whose trials are trained by `processes` processes together, each with a device of its own."""

    processes: int

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """Reports of the first process; the others follow it step by step.

        Raises:
            TrialFailure: as the trainer's; ``infrastructure`` where a process of the group was lost.
        """
        group = _group_of(self.processes)
        threads = max(1, context.threads // self.processes)
        group.begin(self.trainer, replace(context, threads=threads, shared={}))
        running = self.trainer.run(replace(context, threads=threads, group=group.collective()))
        try:
            yield from group.lead(running)
        except BaseException as error:
            # Whoever is still waiting for this process in the middle of a step could wait for ever.
            reason = group.end(failed=not _ends_for_all(error), lost=_is_lost_member(error))
            if reason is not None:
                raise reason from None
            raise
        finally:
            running.close()


def on_devices(trainer: Trainer, processes: int) -> Trainer:
    """The trainer, on one device as it is or on several together."""
    return DataParallel(trainer, processes) if processes > 1 else trainer


_SEEN_BY_ALL = (Cause.NAN_LOSS, Cause.GRADIENT_EXPLOSION, Cause.BLACK_IMAGES)
"""Causes that every process comes to at the same step, or that come up between steps."""


def _ends_for_all(error: BaseException) -> bool:
    return isinstance(error, GeneratorExit) or (isinstance(error, TrialFailure) and error.cause in _SEEN_BY_ALL)


def _is_lost_member(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _LOST)


def _group_of(size: int) -> _Group:
    """The group of this process; started at its first trial, and again after a failure."""
    global _group  # noqa: PLW0603  # as a worker's base models are: one a process
    if _group is None or _group.size != size or not _group.is_alive():
        if _group is not None:
            _group.kill()
        _group = _Group(size)
    return _group


class _Group:
    """This process as the first of `size`, and the others as its children. They end when it does."""

    def __init__(self, size: int) -> None:
        self.size, self._is_idle = size, True
        port = _free_port()
        self._members = [_Member(rank, size, port) for rank in range(1, size)]
        _join(0, size, port)

    def collective(self) -> Any:
        from trainables.lora.collective import Processes

        return Processes()

    def is_alive(self) -> bool:
        return all(member.is_alive() for member in self._members)

    def begin(self, trainer: Trainer, context: TrialContext) -> None:
        """Hands a trial to the others, which wait for the first step."""
        for member in self._members:
            member.send(("trial", trainer, context))
        self._is_idle = False

    def lead(self, running: Generator[Report, None, None]) -> Generator[Report, None, None]:
        """Before each report of the trial, lets the others go as far."""
        while not self._is_idle:
            for member in self._members:
                member.send(("next",))
            report = next(running)
            self._is_idle = report.final
            yield report

    def end(self, *, failed: bool, lost: bool) -> TrialFailure | None:
        """After a trial that did not come to its end: asks the others to stop, or ends them where they may be waiting
        in the middle of a step. Returns why the one that was `lost` failed before this process did."""
        if self._is_idle:
            return None
        self._is_idle = True
        if not failed:
            for member in self._members:
                member.send(("stop",))
            return None
        reason = self._reason() if lost else None
        self.kill()
        return reason

    def _reason(self) -> TrialFailure:
        """What the first to end says, once one has."""
        waiting_until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < waiting_until:
            for member in self._members:
                if not member.is_alive():
                    return member.last_words()
            time.sleep(0.05)
        return _lost("a process of the trial no longer answers")

    def kill(self) -> None:
        """Ends the other processes and leaves torch's group."""
        import torch.distributed

        for member in self._members:
            member.kill()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class _Member:
    """Another process of the group: commands go to its standard input, its last words come from its output."""

    def __init__(self, rank: int, size: int, port: int) -> None:
        environment = dict(os.environ) | _own_device(rank)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainables.parallel", str(rank), str(size), str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip

    def send(self, command: tuple[Any, ...]) -> None:
        try:
            pickle.dump(command, self._stdin)
            self._stdin.flush()
        except BrokenPipeError:
            raise self.last_words() from None

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # a pipe was asked for
        return self._process.stdin

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> TrialFailure:
        """Why the process ended."""
        code = self._process.wait()
        assert self._process.stdout is not None  # a pipe was asked for
        try:
            said = json.loads(self._process.stdout.read())
        except ValueError:
            return _lost(f"a process of the trial ended with exit code {code}")
        return TrialFailure(Cause(said["cause"]), said["message"])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _lost(message: str) -> TrialFailure:
    return TrialFailure(Cause.INFRASTRUCTURE, message)


def _own_device(rank: int) -> dict[str, str]:
    """Shows a process only its own of the GPUs that this one was given."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if given:
        return {"CUDA_VISIBLE_DEVICES": given[rank % len(given)]}
    return {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _join(rank: int, size: int, port: int) -> None:
    import torch

    device = rank if "CUDA_VISIBLE_DEVICES" not in os.environ else 0
    if torch.cuda.is_available():
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        # Numbers and agreements go over sockets also between GPUs: a lost process is then noticed at once.
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size,
    )  # fmt: skip


def _follow(rank: int, size: int, port: int) -> None:
    """A member's life: trial after trial as it is told, until its input ends."""
    _join(rank, size, port)
    from trainables.lora.collective import Processes

    shared: dict[str, Any] = {}
    running: Generator[Report, None, None] | None = None
    while (command := _next_command()) is not None:
        if running is not None and command[0] != "next":
            running.close()
        if command[0] == "trial":
            _, trainer, context = command
            running = trainer.run(replace(context, shared=shared, group=Processes()))
        elif command[0] == "next" and running is not None:
            _go_on(running)


def _go_on(running: Generator[Report, None, None]) -> None:
    try:
        next(running)
    except TrialFailure as failure:
        if failure.cause not in _SEEN_BY_ALL:
            raise


def _next_command() -> tuple[Any, ...] | None:
    try:
        command: tuple[Any, ...] = pickle.load(sys.stdin.buffer)  # from the process that started this one
    except EOFError:
        return None
    return command


def main() -> None:
    """A member of a group, started by its first process; its output is why a trial failed, and nothing else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches all; the first process answers, and ends the others
    words = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not fill a pipe that is read at the end only
    try:
        _follow(*(int(argument) for argument in sys.argv[1:4]))
    except TrialFailure as failure:
        os.write(words, json.dumps({"cause": failure.cause.value, "message": failure.message}).encode())
        sys.exit(1)


if __name__ == "__main__":
    main()
