"""Real weights that happen to lie on this machine must not change what the tests see."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def empty_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        yield
