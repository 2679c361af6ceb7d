"""A real PostgreSQL server on loopback, started by the tests that need one and stopped at their end."""

from __future__ import annotations

import getpass
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

USER, DATABASE = "tuner", "studies"
DEADLINE_SECONDS = 60.0
_INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))


def binaries() -> Path | None:
    """The folder of the server's programs, or None where PostgreSQL is not installed."""
    if _INSTALLED:
        return _INSTALLED[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def skip_where_missing() -> None:
    """Skips the test that calls it where there is no PostgreSQL to start, or no driver to talk to it."""
    pytest.importorskip("psycopg", reason="no psycopg; pip install 'tune-lora[postgresql]'")
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed; apt-get install postgresql")


@dataclass
class Postgres:
    """One server. `folder` holds its data and belongs to the user it runs as."""

    folder: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Of the database that tests use, with its password; open it to store studies."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Starts the server on its port and returns when it answers; the data of an earlier start are there."""
        with (self.folder.parent / "postgres.log").open("ab") as log:
            self.process = subprocess.Popen(
                _unprivileged(
                    [
                        *(_program("postgres"), "-D", str(self.folder), "-p", str(self.port), "-h", "127.0.0.1"),
                        *("-k", str(self.folder), "-c", "fsync=off", "-c", "max_connections=300"),
                    ]
                ),
                stdout=log,
                stderr=log,
                cwd="/",
            )
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server: SIGINT ends connections in order, SIGQUIT is as a power cut. Does nothing to a stopped
        one.
        """
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(DEADLINE_SECONDS)

    def _wait(self) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            asked = subprocess.run([_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)])
            if asked.returncode == 0:
                return
            if self.process is None or self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError((self.folder.parent / "postgres.log").read_text(errors="replace")[-2000:])


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running, empty PostgreSQL with a database and a user with a password; gone at the end of the block."""
    place = Path(tempfile.mkdtemp(prefix="xpg"))
    server = Postgres(place / "data", _free_port(), secrets.token_hex(8))
    try:
        _make(server)
        server.start()
        _sql(server, f"CREATE DATABASE {DATABASE}")
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(place, ignore_errors=True)


def _make(server: Postgres) -> None:
    place, secret = server.folder.parent, server.folder.parent / "password"
    secret.write_text(server.password)
    if os.geteuid() == 0:
        for path in (place, secret):
            shutil.chown(path, _user())
    asked = [_program("initdb"), "-D", str(server.folder), "-U", USER, "--pwfile", str(secret), "--no-sync"]
    options = ["--auth-host=scram-sha-256", "--auth-local=trust", "--encoding=UTF8", "--locale=C"]
    subprocess.run(_unprivileged([*asked, *options]), check=True, capture_output=True, cwd="/")


def _sql(server: Postgres, statement: str) -> None:
    connect = [_program("psql"), "-h", str(server.folder), "-p", str(server.port), "-U", USER, "-d", "postgres"]
    subprocess.run([*connect, "-q", "-c", statement], check=True, capture_output=True)


def _program(name: str) -> str:
    folder = binaries()
    assert folder is not None, "PostgreSQL is not installed"
    return str(folder / name)


def _unprivileged(command: Sequence[str]) -> list[str]:
    """The command as a user that PostgreSQL runs as; it ends with the process that starts it, however that ends."""
    # The signal comes when the thread ends that started it, so of the main thread only.
    is_main = threading.current_thread() is threading.main_thread()
    end = ["setpriv", *(["--pdeathsig", "QUIT"] if is_main else [])]
    if os.geteuid() != 0:
        return [*end, *command] if is_main else list(command)
    group = str(pwd.getpwnam(_user()).pw_gid)
    return [*end, "--reuid", _user(), "--regid", group, "--clear-groups", "--", *command]


def _user() -> str:
    """PostgreSQL refuses to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return getpass.getuser() if os.geteuid() != 0 else ("postgres" if "postgres" in names else "nobody")


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
