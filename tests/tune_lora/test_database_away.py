"""A real `tune-lora run` whose database goes away: for a while, and for good."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.postgres import Postgres, postgres, skip_where_missing
from tests.tune_lora.test_two_drivers import DEADLINE, TOTAL, assert_whole, driver, ended, study_file, trials
from tests.tune_lora.test_two_drivers import wait_for_trials_of as wait_for
from tune_lora import incidents, store

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[Postgres]:
    skip_where_missing()
    with postgres() as running:
        yield running


def test_a_database_that_is_away_for_a_while_costs_nothing(server: Postgres, tmp_path: Path) -> None:
    study = study_file(tmp_path, server.url, "away", "away", seconds=0.2)
    with driver(study) as running:
        wait_for(server, "away", drivers=1)
        server.stop(signal.SIGQUIT)  # as a power cut
        time.sleep(6)
        server.start()
        ended(running, study)
    assert_whole(server, "away")
    told = study.with_suffix(".log").read_text()
    assert "the storage does not answer" in told and "answers again after" in told
    assert server.password not in told
    happened = [str(one) for one in incidents.of(store.open_study(server.url, "away", "minimize").user_attrs)]
    assert any("answers again after" in line for line in happened)


def test_a_database_that_stays_away_ends_the_driver_in_one_line(server: Postgres, tmp_path: Path) -> None:
    study = study_file(tmp_path, server.url, "gone", "gone", seconds=0.2)
    content = yaml.safe_load(study.read_text())
    content["budget"]["storage_patience_minutes"] = 0.05
    study.write_text(yaml.safe_dump(content))
    with driver(study) as running:
        wait_for(server, "gone", drivers=1)
        server.stop()
        assert running.wait(DEADLINE) == 1
    told = study.with_suffix(".log").read_text()
    assert "has not answered for" in told.splitlines()[-1]
    assert "Traceback" not in told
    server.start()
    content["budget"]["storage_patience_minutes"] = 10
    study.write_text(yaml.safe_dump(content))
    with driver(study) as again:
        ended(again, study)
    assert_whole(server, "gone")
    assert len(trials(server, "gone")) >= TOTAL
