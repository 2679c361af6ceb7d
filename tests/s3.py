"""A real S3 server on loopback, in a process of its own, started by the tests that need one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEADLINE_SECONDS = 60.0
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def skip_where_missing() -> None:
    """Skips the test that calls it where the server is not installed."""
    pytest.importorskip("moto.server", reason="moto with its server is not installed; pip install -e '.[dev]'")


@dataclass(frozen=True)
class S3:
    """One server. What it holds is gone with it."""

    port: int
    process: subprocess.Popen[bytes]

    def uri(self, bucket: str, prefix: str = "") -> str:
        """What a study names."""
        path = f"{bucket}/{prefix}".rstrip("/")
        return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"

    def make(self, bucket: str) -> None:
        """Makes a bucket."""
        self.client().create_bucket(Bucket=bucket)

    def client(self) -> Any:
        """Another client of the server than the one that is tested."""
        import boto3

        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", **_boto())


def _boto() -> Mapping[str, str]:
    return {
        "aws_access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        "region_name": CREDENTIALS["AWS_DEFAULT_REGION"],
    }


@contextmanager
def s3(folder: Path) -> Iterator[S3]:
    """A running, empty S3 server; its log goes into `folder`."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "s3.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **CREDENTIALS})
    try:
        _wait(port, process, folder / "s3.log")
        yield S3(port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_SECONDS)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(log.read_text(errors="replace")[-2000:])
