"""From a study file to what is sent to a cluster: the study as it runs there, the files that go along, and the secrets
that it needs. Nothing is sent from here."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster import job as on_cluster
from cluster import package
from cluster.package import Item
from search_spaces.space import Space
from tune_lora import __version__, build, job_secrets, same_study, spec
from tune_lora.along import Along, is_known
from tune_lora.errors import InputErrors
from tune_lora.spec import StudySpec

ROOT = Path(__file__).parents[1]
LARGE = "put what is large where all nodes see it and name it with --shared, or raise --max-mib"
PACKAGES = ("tune_lora", "trainables", "search_spaces", "cluster")


@dataclass(frozen=True)
class Submission:
    """A study that is ready to be sent. `secrets` are values by name, `notes` what its owner should know."""

    spec: StudySpec
    items: tuple[Item, ...]
    secrets: Mapping[str, str]
    notes: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    expects_installed: bool = False
    along: Along | None = None
    """What gathered the items: copies among them are there for as long as this is."""

    @property
    def folder(self) -> str:
        """Of the results, on the cluster."""
        return str(self.spec.folder)

    @property
    def told(self) -> tuple[str, ...]:
        """What goes along and what does not, a line each."""
        size = sum(item.size for item in self.items) / package.MIB
        secrets = (f"sent sealed: {', '.join(sorted(self.secrets))}",) if self.secrets else ()
        return (f"sent: {len(self.items)} files, {size:.1f} MiB", *secrets, *self.notes)

    def environment(self, columns: int) -> dict[str, str]:
        """What the job's processes get: the secrets sealed with the cluster's token.

        Raises:
            InputError: there are secrets and no token to seal them with.
        """
        return {"COLUMNS": str(columns), **job_secrets.sealed(self.secrets)}


def prepared(
    asked: StudySpec,
    *,
    arguments: Sequence[str] = (),
    shared: Iterable[Path] = (),
    env: Iterable[str] = (),
    max_mib: float = package.LIMIT_MIB,
) -> Submission:
    """A study as it is sent: what it names and is here goes along, but for what lies below a folder of `shared`.

    Raises:
        InputErrors: results that would be lost, data that are nowhere, a package that is too large, a variable that is
            not set.
    """
    check_results(asked)
    listings = frozenset() if asked.data is None else frozenset(filter(None, (asked.data.path, asked.data.validation)))
    along = Along(asked.folder / on_cluster.INPUTS, [Path(asked.results), *shared], listings)
    sent = _with_space(asked)
    sent = spec.with_paths(sent, along.place)
    sent = sent.model_copy(
        update={
            "trainable": along.place_code(sent.trainable),
            "resources": sent.resources.model_copy(update={"address": None}),  # the driver's own cluster is meant
        }
    )
    if missing := [path for path in same_study.data_paths(sent) if not is_known(path)]:
        raise InputErrors(f"{path}: does not exist here; must, or be an absolute path on the nodes" for path in missing)
    secrets, dropped = job_secrets.wanted(asked, env)
    is_checkout = (ROOT / "pyproject.toml").is_file()
    program = package.of_checkout(ROOT, PACKAGES, weights=asked.trainer == "diffusion_lora") if is_checkout else []
    items = (*program, *along.items)
    package.check(items, max_mib, LARGE)
    if not along.notes:  # all of it is here, so that it can be looked at before anything is sent
        build.plan(asked)
    return Submission(
        sent,
        items,
        secrets,
        (*along.notes, *along.withheld, *dropped),
        tuple(arguments),
        expects_installed=not is_checkout,
        along=along,
    )


def check_results(asked: StudySpec) -> None:
    """Refuses results, or a storage, that would be lost with the job.

    Raises:
        InputErrors: such as a relative path, which would lie in the job's temporary folder.
    """
    mistakes = []
    if not Path(asked.results).is_absolute():
        mistakes.append(
            f"results: got {asked.results!r}, which would be lost with the job; must be an absolute path that all "
            "nodes see, such as --set results=/shared/results"
        )
    file = re.fullmatch(r"sqlite:///(.*)", asked.storage or "")
    if file is not None and not Path(file[1]).is_absolute():
        mistakes.append(
            f"storage: got {asked.storage!r}, which would be lost with the job; must be sqlite:////absolute/path, or "
            "left out (study.db in the results)"
        )
    if mistakes:
        raise InputErrors(mistakes)


@contextmanager
def written_package(sent: Submission) -> Iterator[Path]:
    """The package as a folder, for the duration of the block. No secret is in it."""
    folder = Path(tempfile.mkdtemp(prefix="tune-lora-"))
    try:
        package.write(sent.items, folder)
        shutil.copyfile(on_cluster.__file__, folder / f"{on_cluster.MODULE}.py")
        (folder / on_cluster.STUDY).write_text(yaml.safe_dump(sent.spec.as_mapping(), sort_keys=False), "utf-8")
        about = {
            "version": __version__,
            "expects_installed": sent.expects_installed,
            "folder": sent.folder,
            "arguments": list(sent.arguments),
        }
        (folder / on_cluster.DESCRIPTION).write_text(json.dumps(about), "utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_space(asked: StudySpec) -> StudySpec:
    """The study with its space in it, where that is a file: the same study whatever folder it is unpacked into."""
    if isinstance(asked.space, str) and asked.space.endswith((".yaml", ".yml")):
        return asked.model_copy(update={"space": dict(Space.load(asked.space).source)})
    return asked
