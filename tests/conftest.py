"""What all tests share: one thread, no account, no screen, and where the public test data is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before numpy, torch or matplotlib is imported: they read these once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("RAY_ADDRESS", None)

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parent.parent
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data"

# Machines that run this are slow and shared; the rules are about what holds, never about how fast.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses Ray has the machine to itself."""
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public test data (Fluent Emoji 3D, LCBench, MTL_ChiParameter); skips where it is absent."""
    folder = Path(os.environ.get("TUNE_LORA_DATA", DEFAULT_DATA))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set TUNE_LORA_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def real_character(data: Path) -> Path:
    """Folder of 96 captioned renders of one character (Fluent Emoji 3D); skips where it is absent."""
    folder = data / "fluent3d" / "character"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A real local Ray session, shared by all tests that need one."""
    from cluster.connect import session

    with session():
        yield


@pytest.fixture
def smollm2() -> str:
    """The small language model that a registry package carries."""
    from trainables.lora.text.sources import resolve
    from tune_lora.errors import InputError

    try:
        resolve("smollm2")
    except InputError as error:
        pytest.skip(str(error))
    return "smollm2"


@pytest.fixture(scope="module")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that no other module has filled; torch with one thread, whatever the last trial in this process had."""
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_LORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
