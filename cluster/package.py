"""What goes along with a submitted study: which files, how large, and what is never sent. Nothing is sent from here."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from tune_lora.errors import InputError, InputErrors

MIB = 1024 * 1024
RAYS_LIMIT_MIB = 512
"""Ray keeps packages in the memory of its head, and refuses larger ones."""
LIMIT_MIB = 100
"""Ours, unless it is said otherwise: every node unpacks the package."""
SHOWN = 5
NEVER_FOLDERS = (".*", "venv", "env", "node_modules", "__pycache__", "*.egg-info", "wandb")
NEVER_FILES = (".*", "*.pyc", "*.pyo")
"""Caches, and what programs keep for themselves, secrets among it: all that begins with a dot. (What a `.gitignore`
among data leaves out, Ray would leave out as well.)"""
_SECRET = re.compile(
    r"""
      .*\.(pem|key|p12|pfx|jks|keystore|kdbx|gpg|ppk|token|kubeconfig)
    | id_(rsa|dsa|ecdsa|ed25519|xmss)(?![a-z]).*
    | kubeconfig.*
    | (.*[^a-z])?(service[-_ ]?account|client[-_ ]secret)(?![a-z]).*\.json
    | (.*[-_. ])?(secrets?|credentials?|passwords?|passwd|auth[-_]?token|token)
      (\.(txt|json|ya?ml|toml|ini|cfg|conf|env|xml|properties|csv|enc|bak|old))*
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Whole names of files that hold keys, passwords or tokens. A tokenizer (``tokens.txt``, ``special_tokens_map.json``)
is none of them, and neither is a module or a picture of such a name."""
CODE_FILES = ("*.py", "*.yaml", "*.yml", "*.toml", "*.json", "*.txt", "*.j2", "*.css", "*.js", "*.html", "*.md", "*.sh")
NEVER_WITH_CODE = (
    "results",
    "outputs",
    "runs",
    "data",
    "datasets",
    "weights",
    "models",
    "checkpoints",
    "tests",
    "docs",
)
"""Folders beside a trainer of one's own that are none of its code."""
_UNPACKED = "working_dir_files"


@dataclass(frozen=True)
class Item:
    """One file, and where it lies in the package."""

    source: Path
    target: PurePosixPath
    size: int
    """In bytes."""


def is_unpacked(path: Path) -> bool:
    """Whether a path lies in a package that Ray unpacked: it goes when the job's nodes do."""
    return _UNPACKED in path.resolve().parts


def within_package(path: str) -> str:
    """The path inside of the package, for one that lies in an unpacked one: two submissions unpack into two folders."""
    parts = Path(path).parts
    return str(Path(*parts[parts.index(_UNPACKED) + 2 :])) if _UNPACKED in parts[:-2] else path


def of_data(path: Path) -> list[Item]:
    """All files of a folder (or the file itself) but caches and secrets.

    Raises:
        InputErrors: it is the home folder; symbolic links that lead out of the folder, or to folders.
    """
    if path.is_file():
        return [_item(path, PurePosixPath(path.name))]
    _check_is_no_home(path)
    if linked := list(_linked_folders(path)):
        raise InputErrors(
            f"{folder}: is a link to a folder, which would not go along; must be a folder, or use --shared"
            for folder in linked
        )
    found = list(_files(path, NEVER_FOLDERS, ("*",)))
    leaving = [file for file in found if not file.resolve().is_relative_to(path.resolve())]
    if leaving:
        raise InputErrors(f"{file}: is a link that leads out of {path}; must be a file" for file in leaving)
    return [_item(file, path.name / PurePosixPath(file.relative_to(path).as_posix())) for file in found]


def of_code(folder: Path) -> list[Item]:
    """Python files and small texts below a folder that a trainer of the user's own lies in.

    Raises:
        InputError: it is the home folder.
    """
    _check_is_no_home(folder)
    found = _files(folder, (*NEVER_FOLDERS, *NEVER_WITH_CODE), CODE_FILES)
    return [_item(file, PurePosixPath(file.relative_to(folder).as_posix())) for file in found]


def of_checkout(root: Path, packages: Iterable[str], weights: bool) -> list[Item]:
    """The program itself, where it runs from a checkout at `root`; with the small models that it brings along or
    without."""
    items: list[Item] = []
    for package in packages:
        files = _files(root / package, (*NEVER_FOLDERS, "weights"), CODE_FILES)
        items += [_item(file, PurePosixPath(file.relative_to(root).as_posix())) for file in files]
    if weights:
        for folder in sorted((root / "trainables").glob("*/weights")):
            files = _files(folder, NEVER_FOLDERS, ("*",))
            items += [_item(file, PurePosixPath(file.relative_to(root).as_posix())) for file in files]
    return items


def withheld(path: Path) -> list[Path]:
    """Files below a folder that do not go along for their names alone, which are those of secrets."""
    return [
        Path(place) / name
        for place, _, files in _walked(path, NEVER_FOLDERS)
        for name in files
        if not _is_one_of(name, NEVER_FILES) and _SECRET.fullmatch(name)
    ]


def _check_is_no_home(folder: Path) -> None:
    """Refuses to send all that a user has: a data set or a trainer there is one by mistake."""
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111  # Path.home() raises where there is none
    if home.is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder}: is or holds the home folder {home}, all of which would be sent; must be a folder in it"
        )


def _linked_folders(folder: Path) -> Iterator[Path]:
    for place, folders, _ in _walked(folder, NEVER_FOLDERS):
        yield from (found for name in folders if (found := Path(place) / name).is_symlink())


def _walked(folder: Path, never: Sequence[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in order, without folders of some names. Links to folders are named and not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_one_of(name, never))
        yield place, folders, sorted(files)


def _files(folder: Path, never: Sequence[str], names: Sequence[str]) -> Iterator[Path]:
    """Files below a folder, in order, but those of secrets. Links to folders are not followed."""
    for place, _, files in _walked(folder, never):
        for name in files:
            if _is_one_of(name, names) and not _is_one_of(name, NEVER_FILES) and not _SECRET.fullmatch(name):
                yield Path(place) / name


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _item(file: Path, target: PurePosixPath) -> Item:
    try:
        return Item(file, target, file.stat().st_size)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); must be a file to go along") from None


def below(folder: str, items: Iterable[Item]) -> list[Item]:
    """The same items one folder deeper."""
    return [replace(item, target=folder / item.target) for item in items]


def digest(items: Sequence[Item]) -> str:
    """A short name for items by content and place."""
    found = hashlib.sha256()
    for item in sorted(items, key=lambda one: one.target):
        found.update(f"{item.target}\0{item.size}\0".encode())
        with item.source.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()[:16]


def check(items: Sequence[Item], limit_mib: float, hint: str) -> None:
    """Refuses what is too large to send, before anything is sent.

    Raises:
        InputErrors: one line for the whole, one for each of the largest files.
    """
    if limit_mib > RAYS_LIMIT_MIB:
        raise InputError(f"--max-mib: got {limit_mib:g}; must be at most {RAYS_LIMIT_MIB}, which is Ray's own limit")
    whole = sum(item.size for item in items)
    if whole <= limit_mib * MIB:
        return
    largest = sorted(items, key=lambda item: (-item.size, item.target))[:SHOWN]
    raise InputErrors(
        [
            f"the package is {_mib(whole)} in {len(items)} files; must be at most {limit_mib:g} MiB; {hint}",
            *(f"{item.source}: {_mib(item.size)}" for item in largest),
        ]
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def write(items: Iterable[Item], folder: Path) -> None:
    """Copies items to their places below a folder."""
    for item in items:
        target = folder / item.target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.source, target)
