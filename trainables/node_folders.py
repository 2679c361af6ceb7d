"""Where a node that shares no disk keeps trials while they run: folders of this user alone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from trainables.mirror_store import MirrorAway

NODE_FOLDER = "TUNE_LORA_NODE_FOLDER"
"""The environment variable that names a folder of the node's own; default: one for the user where temporary files
are."""


def node_folder() -> Path:
    """Where this node keeps trials while they run."""
    named = os.environ.get(NODE_FOLDER)
    return Path(named) if named else Path(tempfile.gettempdir()) / f"tune-lora-{os.getuid()}"


def make_own(folder: Path) -> None:
    """Makes a study's folder on this node, and the one around it, for this user alone.

    Raises:
        MirrorAway: it is somebody else's; folders of temporary files are everybody's to write.
    """
    chosen = NODE_FOLDER in os.environ  # what a person chose keeps the mode that it has
    if chosen:
        folder.parent.mkdir(parents=True, exist_ok=True)
    for one in (folder,) if chosen else (folder.parent, folder):
        if not (one.is_symlink() or one.exists()):
            one.mkdir(mode=0o700, exist_ok=True)  # another trial may make it just now
        found = one.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            what = f"belongs to user {found.st_uid}" if stat.S_ISDIR(found.st_mode) else "is no folder"
            raise MirrorAway(f"{one}: {what}; must be a folder of user {os.getuid()}: set {NODE_FOLDER} to another")
        one.chmod(0o700)
