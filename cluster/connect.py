"""Opens and closes the Ray session: this machine, an existing cluster, or the job that this process runs in."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager

import ray

from cluster.spec import Capacity
from tune_lora.errors import InputError

_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # trials exchange small results; images and weights go through files
_ANSWER_SECONDS = 10.0  # for a connection; Ray itself tries for minutes, and writes a warning every few seconds
_FOUND_BY_RAY = ("auto", "local")
_CLIENT = "ray://"


@contextmanager
def session(address: str | None = None) -> Generator[Capacity, None, None]:
    """A Ray session for the duration of the block; yields what the cluster has.

    A session that was open before is used and left open. A local one, which this opened, is shut down.

    Raises:
        InputError: nothing answers at the address, or it is no address.
    """
    if ray.is_initialized():
        yield _capacity()
        return
    _open(address or os.environ.get("RAY_ADDRESS"))
    try:
        yield _capacity()
    finally:
        ray.shutdown()


def _open(address: str | None) -> None:
    # A trial that was given no GPU must see none: it would train there, with as many others as there are CPUs.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # Ray's own banners and worker prefixes would bury the study's view.
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        ray.init(include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        return
    _check_answers(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"resources.address: no Ray cluster answers at {address!r}: {reason}") from error


def _check_answers(address: str) -> None:
    if address in _FOUND_BY_RAY:
        return
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(
            f"resources.address: got {address!r}; must be host:port, {_CLIENT}host:port or auto, or left out"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"resources.address: no Ray cluster answers at {address!r}: {error.strerror or error}"
        ) from None


def _capacity() -> Capacity:
    found = ray.cluster_resources()
    return Capacity(cpu=found.get("CPU", 0.0), gpu=found.get("GPU", 0.0))
