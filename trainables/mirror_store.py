"""Files in object storage, through pyarrow's file systems: put, fetched, listed and deleted, with patience.

Anything that `pyarrow.fs.FileSystem.from_uri` opens will do: ``s3://bucket/prefix?endpoint_override=host:port``,
``gs://``, ``file:///``. Credentials are the environment's; a URI that holds some is refused.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from trainables.mirror_uri import SUCH_AS, mistake
from trainables.redaction import redacted
from tune_lora.errors import InputError, StudyError

PATIENCE_SECONDS = 60.0
_PART = ".part"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_LASTING = ("NO_SUCH_BUCKET", "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_KEY")
_IN_WORDS = {
    "NO_SUCH_BUCKET": "the bucket does not exist; make it first",
    "ACCESS_DENIED": "access is denied; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be of somebody who may write",
    "INVALID_ACCESS_KEY_ID": "the key is unknown there; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "SIGNATURE_DOES_NOT_MATCH": "the secret does not fit its key; set AWS_SECRET_ACCESS_KEY",
    "NETWORK_CONNECTION": "nothing answers there",
}

T = TypeVar("T")


class MirrorAway(StudyError):
    """The storage did not do what it was asked for, for as long as it was asked."""


class MirrorStore:
    """A place in object storage. Keys are relative to it, with ``/`` between their parts.

    Raises:
        InputError: at making, for a URI that is none or holds a password.
        MirrorAway: from every method, when `patience` seconds are over or the fault is none that passes.
    """

    def __init__(self, uri: str, *, patience: float = PATIENCE_SECONDS) -> None:
        if (why := mistake(uri)) is not None:
            raise InputError(f"resources.mirror: {why}")
        self.uri, self._patience = uri, patience
        try:
            self._files, root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"resources.mirror: got {uri!r}: {_reason(error)}; must be {SUCH_AS}") from None
        self._root = PurePosixPath(root)
        self._is_folder = isinstance(self._files, fs.LocalFileSystem)

    def put(self, source: Path, key: str) -> None:
        """Copies a file there, whole or not at all."""
        target = self._at(key)

        def copy(to: str) -> None:
            fs.copy_files(str(source), to, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self._files)

        self._patiently(lambda: self._write_whole(target, copy))

    def put_bytes(self, content: bytes, key: str) -> None:
        """Writes an object."""
        target = self._at(key)

        def write(to: str) -> None:
            with self._files.open_output_stream(to) as stream:
                stream.write(content)

        self._patiently(lambda: self._write_whole(target, write))

    def get(self, key: str, target: Path) -> None:
        """Copies an object to a file, in whose place there is nothing or all of it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{target.name}{_PART}")
        self._patiently(
            lambda: fs.copy_files(
                self._at(key),
                str(scratch),
                source_filesystem=self._files,
                destination_filesystem=fs.LocalFileSystem(),
            )
        )
        scratch.replace(target)

    def get_bytes(self, key: str) -> bytes | None:
        """The content of an object; None where there is none."""

        def read() -> bytes | None:
            if self._files.get_file_info(self._at(key)).type != fs.FileType.File:
                return None
            with self._files.open_input_stream(self._at(key)) as stream:
                return bytes(stream.read())

        return self._patiently(read)

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        found = self._patiently(lambda: self._files.get_file_info(self._at(key)))
        return bool(found.type == fs.FileType.File)

    def drop(self, key: str) -> None:
        """Deletes one object that is there."""
        self._patiently(lambda: self._files.delete_file(self._at(key)))

    def listing(self, prefix: str) -> dict[str, int]:
        """Sizes in bytes of all objects below a key, by their keys relative to it; none whose name leads elsewhere."""
        root = PurePosixPath(self._at(prefix))
        selector = fs.FileSelector(str(root), recursive=True, allow_not_found=True)
        found = self._patiently(lambda: self._files.get_file_info(selector))
        files = [one for one in found if one.type == fs.FileType.File]
        sizes = {PurePosixPath(one.path).relative_to(root): int(one.size) for one in files}
        return {str(key): size for key, size in sizes.items() if key.suffix != _PART and ".." not in key.parts}

    def delete(self, prefix: str) -> None:
        """Deletes all objects below a key; none there is as good."""
        for key in self.listing(prefix):
            self.drop(f"{prefix}/{key}")

    def check(self) -> None:
        """Raises InputError where objects cannot be written here, read back and deleted."""
        try:
            self.put_bytes(b"tune-lora", ".check")
            self.get_bytes(".check")
            self.drop(".check")
        except MirrorAway as error:
            raise InputError(f"resources.mirror: {error}") from None

    def _at(self, key: str) -> str:
        return str(self._root / key)

    def _write_whole(self, target: str, write: Callable[[str], None]) -> None:
        if not self._is_folder:  # an object is whole or not there
            write(target)
            return
        self._files.create_dir(str(PurePosixPath(target).parent), recursive=True)
        write(f"{target}{_PART}")
        self._files.move(f"{target}{_PART}", target)

    def _patiently(self, ask: Callable[[], T]) -> T:
        give_up, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            try:
                return ask()
            except (OSError, pa.ArrowException) as error:
                lasts = any(word in str(error) for word in _LASTING) or isinstance(error, FileNotFoundError)
                if lasts or time.monotonic() >= give_up:
                    raise MirrorAway(f"{self.uri}: {_reason(error)}") from error
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(_LONGEST_PAUSE, pause * 2)


def _reason(error: BaseException) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    known = next((words for code, words in _IN_WORDS.items() if f"AWS Error {code}" in text), None)
    return known or redacted(text.partition(" (Request ID")[0])
