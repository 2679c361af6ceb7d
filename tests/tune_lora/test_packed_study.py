"""Whole studies whose trials share bases, on a real Ray session: what they find, and what the loss of a host costs."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from cluster.spec import Capacity
from tests.tune_lora.studies import RATES
from trainables import ray_host
from trainables.curve import Curve
from trainables.protocol import Cause, TrialContext, TrialFailure
from tune_lora import placing, study
from tune_lora import spec as specs
from tune_lora.errors import InputError


def spec(folder, *, packing=4, cpu=2, budget=None, **changes):
    mapping = {
        "name": "packed",
        "trainer": "curve",
        "space": RATES,
        "search": {"n_startup_trials": 4, "seed": 7},
        "scheduler": {"grace": 2, "eta": 2},
        "budget": {"n_trials": 8, "plateau": None} | (budget or {}),
        "resources": {"cpu": cpu, "packing": packing},
        "tracking": {"wandb": "off"},
        "results": str(folder),
    }
    return specs.from_mapping(mapping | changes, "test")


def alone(trial, trainer):
    """What the trial's trainer says of it where nobody is beside it."""
    context = TrialContext(trial.config, Path("none"), seed=trial.seed)
    return {report.budget: dict(report.metrics) for report in trainer.run(context)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_session):
    trainer = Curve(seconds=0.3, nan_above=2e-2)
    folder = tmp_path_factory.mktemp("results")
    what = spec(folder, curve={"seconds": trainer.seconds, "nan_above": trainer.nan_above}, budget={"n_trials": 12})
    return study.run(what), trainer


def test_every_trial_learns_what_it_would_have_learnt_alone(finished):
    record, _ = finished
    assert len(record.trials) == 12
    for trial in record.trials:
        if trial.cause is Cause.NAN_LOSS:
            continue
        wanted = alone(trial, Curve())
        assert trial.history
        for budget, metrics in trial.history.items():
            assert metrics["score"] == pytest.approx(wanted[budget]["score"])


def test_the_scheduler_ends_single_trials_of_a_pack_and_the_others_train_on(finished):
    record, _ = finished
    assert record.count("pruned") >= 1
    for trial in record.trials:
        if trial.state == "complete":
            assert trial.last_budget == trial.config["max_train_epochs"]
            assert list(trial.history) == list(range(1, trial.last_budget + 1))


def test_a_nan_is_its_own_trials_cause(finished):
    record, _ = finished
    failed = [trial for trial in record.trials if trial.state == "failed"]
    assert failed, "the seed draws no rate above 2e-2"
    assert all(trial.cause is Cause.NAN_LOSS for trial in failed)
    assert all(trial.config["learning_rate"] > 2e-2 for trial in failed)
    assert all(trial.config["learning_rate"] <= 2e-2 for trial in record.trials if trial.state != "failed")


def test_seconds_are_shares_of_the_device_and_not_of_the_clock(finished):
    record, trainer = finished
    epochs = sum(trial.last_budget for trial in record.trials)
    shares = sum(trial.seconds for trial in record.trials)
    assert 0 < shares < epochs * trainer.seconds  # some epochs were drawn together, and cost less than one each
    assert all(trial.seconds > 0 for trial in record.trials)


def hosts():
    running = psutil.process_iter(["cmdline"])
    return [process for process in running if "ray::HostActor" in " ".join(process.info["cmdline"] or [])]


def test_hosts_end_with_their_study(finished):
    deadline = time.monotonic() + 30
    while hosts() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not hosts()


def end_one_host(folder, signal_number, ended):
    """Once two trials have a checkpoint."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not ended:
        time.sleep(0.05)
        saved = {path.parent.parent.name for path in folder.glob("trials/*/checkpoint/0*")}
        if len(saved) >= 2 and (found := hosts()):
            os.kill(found[0].pid, signal_number)
            ended.append(found[0].pid)


# To be told to end uses none of a trial's retries, as it does where the trial has a worker to itself.
@pytest.mark.parametrize(
    ("signal_number", "retries"), [(signal.SIGKILL, 1), (signal.SIGTERM, 0)], ids=["killed", "told-to-end"]
)
def test_the_loss_of_a_host_costs_no_result(signal_number, retries, tmp_path, ray_session):
    ended: list[int] = []
    thread = threading.Thread(target=end_one_host, args=(tmp_path / "packed", signal_number, ended))
    thread.start()
    record = study.run(
        spec(tmp_path, curve={"seconds": 0.3}, scheduler={"name": "none"}, budget={"n_trials": 4, "retries": retries})
    )
    thread.join()
    assert ended, "no host was found to end"
    assert [trial.state for trial in record.trials] == ["complete"] * 4
    for trial in record.trials:
        wanted = alone(trial, Curve())
        assert list(trial.history) == list(range(1, trial.config["max_train_epochs"] + 1))
        for budget, metrics in trial.history.items():
            assert metrics["score"] == pytest.approx(wanted[budget]["score"])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, ray_session):
    """A study of two precisions, in which one trial in four has a bug."""
    folder = tmp_path_factory.mktemp("results")
    precision = {"precision": {"type": "categorical", "choices": ["fp32", "bf16"]}}
    what = spec(
        folder, space=RATES | {"parameters": RATES["parameters"] | precision},
        curve={"crash_above": 1e-2, "seconds": 0.1}, scheduler={"name": "none"},
        search={"sampler": "random", "seed": 3}, budget={"n_trials": 8},
    )  # fmt: skip
    return study.run(what), folder / "packed"


def test_trials_that_cannot_share_a_base_are_all_trained(mixed):
    record, _ = mixed
    sound = [trial for trial in record.trials if trial.config["learning_rate"] <= 1e-2]
    assert [trial.state for trial in sound] == ["complete"] * len(sound)
    assert {trial.config["precision"] for trial in sound} == {"fp32", "bf16"}


def test_a_bug_in_a_packed_trial_is_its_own_and_keeps_its_traceback(mixed):
    record, folder = mixed
    broken = [trial for trial in record.trials if trial.config["learning_rate"] > 1e-2]
    assert broken, "the seed draws no rate above 1e-2"
    for trial in broken:
        assert trial.cause is Cause.CRASH and trial.message == "RuntimeError: a bug, as it was asked for"
        text = (folder / "trials" / str(trial.number) / "traceback.txt").read_text()
        assert "curve.py" in text


def test_as_many_trials_run_as_there_are_seats_and_no_more(tmp_path, ray_session):
    there = Capacity(4, 0)
    for packing, cpu, concurrent, seats, wanted in [
        ("off", 1, "auto", 1, 4),
        (4, 1, "auto", 4, 16),
        (4, 2, 6, 4, 6),
        ("auto", 2, "auto", 1, 2),  # it was measured not to pay
        ("auto", 2, "auto", 8, 16),
    ]:
        resources = spec(tmp_path, resources={"cpu": cpu, "packing": packing, "concurrent": concurrent}).resources
        slots = placing.fixed(resources, placing.asked(resources, there), there, seats)
        assert (slots.count, slots.seats) == (wanted, seats)


def test_more_at_a_time_than_have_a_seat_is_refused(tmp_path):
    resources = spec(tmp_path, resources={"cpu": 2, "packing": 4, "concurrent": 12}).resources
    with pytest.raises(InputError, match=r"resources\.concurrent: got 12; must be at most 8"):
        placing.fixed(resources, placing.asked(resources, Capacity(4, 0)), Capacity(4, 0), 4)


def test_a_trial_that_no_host_answers_is_not_waited_for_without_end(tmp_path, ray_session, monkeypatch):
    monkeypatch.setattr(ray_host, "PATIENCE_SECONDS", 0.1)
    context = TrialContext({"learning_rate": 1e-3}, tmp_path)
    with pytest.raises(TrialFailure, match="no host answered") as failed:
        next(ray_host.Hosted(Curve(), "nobody-").run(context))
    assert failed.value.cause is Cause.INFRASTRUCTURE
