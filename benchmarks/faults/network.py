"""Machines that are network namespaces of this one, each with a cable to the first, so that cables can be pulled."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_COUNTER = itertools.count(1)


class Machine:
    """A namespace with an address; what runs in it is found by the kernel's own list."""

    def __init__(self, name: str, address: str, hub: Machine | None, port: str) -> None:
        self.name, self.address = name, address
        self._hub, self._port = hub, port

    def command(self, *words: str) -> list[str]:
        """A command line that runs there."""
        return ["ip", "netns", "exec", self.name, *words]

    def processes(self) -> list[int]:
        """All that run there."""
        return [int(word) for word in _ip("netns", "pids", self.name).split()]

    def kill(self) -> None:
        """Ends the machine: every process at once, none is told."""
        while numbers := self.processes():
            for number in numbers:
                with _gone_is_fine():
                    os.kill(number, signal.SIGKILL)

    def cut(self) -> None:
        """Pulls the cable."""
        self._link("down")

    def join(self) -> None:
        """Puts it back."""
        self._link("up")

    def _link(self, state: str) -> None:
        assert self._hub is not None, "the first machine has no cable of its own"
        _ip("-n", self._hub.name, "link", "set", self._port, state)


class Network:
    """Machines around the first one, which passes on what they say to each other; nothing else is on it. Used as a
    context manager; ends all that runs on its machines."""

    def __init__(self) -> None:
        self._prefix = f"x{os.getpid()}n{next(_COUNTER)}m"
        self._machines: list[Machine] = []
        self._made = 0

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in list(self._machines):
            self.remove(machine)

    def machine(self, hub: Machine | None = None) -> Machine:
        """A machine, with a cable to `hub`."""
        index = self._made
        self._made += 1
        address = f"10.77.{index}.1" if hub is None else f"10.77.{index}.2"
        machine = Machine(f"{self._prefix}{index}", address, hub, f"p{index}")
        self._machines.append(machine)
        _ip("netns", "add", machine.name)
        _ip("-n", machine.name, "link", "set", "lo", "up")
        if hub is None:
            _ip("-n", machine.name, "address", "add", f"{address}/32", "dev", "lo")
            # Programs find their own address by asking which one leads outside.
            _ip("-n", machine.name, "route", "add", "default", "dev", "lo", "src", address)
            subprocess.run(machine.command("sysctl", "-wq", "net.ipv4.ip_forward=1"), check=True)
        else:
            self._connect(machine, hub, index)
        return machine

    def _connect(self, machine: Machine, hub: Machine, index: int) -> None:
        gateway, port = f"10.77.{index}.1", f"p{index}"
        _ip("-n", hub.name, "link", "add", port, "type", "veth", "peer", "name", "e", "netns", machine.name)
        _ip("-n", hub.name, "address", "add", f"{gateway}/24", "dev", port)
        _ip("-n", hub.name, "link", "set", port, "up")
        _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "e")
        _ip("-n", machine.name, "link", "set", "e", "up")
        _ip("-n", machine.name, "route", "add", "default", "via", gateway)

    def remove(self, machine: Machine) -> None:
        """Ends a machine and all that runs on it."""
        machine.kill()
        self._machines.remove(machine)
        subprocess.run(["ip", "netns", "delete", machine.name], check=False, capture_output=True)


def is_possible() -> bool:
    """Whether this machine lets us make namespaces and join them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with Network() as network:
            network.machine(network.machine())
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return
