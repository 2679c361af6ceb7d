"""The processes of this process's own Ray."""

from __future__ import annotations

import contextlib

import psutil

TITLES = ("Curve", "ResourceTrainable", "DiffusionLora")
"""What Ray calls a process that trains: between calls, and while it serves one."""


def training_processes() -> list[psutil.Process]:
    """Those that train now: this process started their raylet."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(child.cmdline())
            found += [child] if "ray::" in title and any(word in title for word in TITLES) else []
    return found
