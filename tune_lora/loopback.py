"""Pages that only the user of this machine may see: where they are served, and who may ask for them."""

from __future__ import annotations

import secrets

HOST = "127.0.0.1"
_NAMES = frozenset({HOST, "localhost", "::1"})
"""Hosts that a browser on this machine, or at the near end of an ssh tunnel, asks for."""


def is_here(host: str) -> bool:
    """Whether a Host header names this machine, with any port: the near end of a tunnel has its own.

    A page of another site whose name was made to lead here (DNS rebinding) asks for that name.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name in _NAMES


def token() -> str:
    """A secret for an address, with 192 random bits."""
    return secrets.token_urlsafe(24)


def is_token(given: str, wanted: str) -> bool:
    """Whether the two are the same; how long it takes does not tell how far they are."""
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
