"""A trainer behind Ray's own trainable interface, without a cluster: checkpoint, restore, reuse and causes."""

import json

import pytest

from trainables import checkpoints, ray_adapter
from trainables.curve import Curve
from trainables.protocol import Cause, Report, TrialContext, TrialFailure
from trainables.ray_adapter import trainable_for


def config(folder, number=0, rate=1e-3, epochs=3, **trial):
    return {
        "params": {"learning_rate": rate, "max_train_epochs": epochs},
        "trial": {"number": number, "folder": str(folder), "seed": 1, "decide_at": [2], **trial},
    }


def started(folder, trainer=None, **options):
    return trainable_for(trainer or Curve(), "score", threads=1)(config(folder, **options))


def test_each_step_is_one_report_and_the_last_is_done(tmp_path):
    trainable = started(tmp_path)
    results = [trainable.train() for _ in range(3)]
    assert [result["budget"] for result in results] == [1, 2, 3]
    assert [result["done"] for result in results] == [False, False, True]
    assert results[-1]["final"] and results[-1]["score"] == results[-1]["metrics"]["score"]


def test_a_trial_continues_from_its_folder_in_another_process(tmp_path):
    first = started(tmp_path)
    expected = [first.train() for _ in range(3)]
    fresh = tmp_path / "again"
    lost = started(fresh)
    lost.train()
    second = started(fresh)  # nothing of `lost` is left but its folder
    assert second.train()["budget"] == 1  # told again, in case it was lost on its way
    result = second.train()
    assert result["budget"] == 2
    assert result["score"] == pytest.approx(expected[1]["score"])


def test_a_reused_worker_starts_the_next_trial_from_its_beginning(tmp_path):
    trainable = started(tmp_path / "0")
    trainable.train()
    assert trainable.reset(config(tmp_path / "1", number=1))
    assert trainable.train()["budget"] == 1


def test_a_failure_of_the_configuration_is_a_result_with_its_cause(tmp_path):
    trainable = started(tmp_path, Curve(nan_above=1e-2), rate=0.1)
    trainable.train()
    result = trainable.train()
    assert result["cause"] == Cause.NAN_LOSS and result["done"] and not result["final"]
    assert "score" not in result


def test_a_failure_names_the_last_good_checkpoint_where_there_is_one(tmp_path):
    trainable = started(tmp_path / "late", Curve(nan_above=1e-2), rate=0.1)
    trainable.train()
    message = trainable.train()["message"]
    assert message == "loss is nan at epoch 2; the last good checkpoint is checkpoint/00000001"
    assert (tmp_path / "late" / "checkpoint" / "00000001" / "curve.json").is_file()

    class AtOnce(Curve):
        def run(self, context: TrialContext):
            raise TrialFailure(Cause.NAN_LOSS, "loss is nan at step 0")
            yield

    assert started(tmp_path / "early", AtOnce()).train()["message"] == "loss is nan at step 0"


class Buggy(Curve):
    def run(self, context: TrialContext):
        yield Report(1, {"val_loss": 1.0})
        raise ZeroDivisionError("oops")


def test_a_bug_is_a_crash_whose_traceback_is_kept(tmp_path):
    trainable = started(tmp_path, Buggy())
    assert "score" not in trainable.train()
    result = trainable.train()
    assert result["cause"] == Cause.CRASH and "ZeroDivisionError: oops" in result["message"]
    assert "ZeroDivisionError" in (tmp_path / "traceback.txt").read_text()


class Endless(Curve):
    def run(self, context: TrialContext):
        yield Report(1, {"val_loss": 1.0})


def test_a_trainer_that_ends_without_a_final_report_is_a_crash(tmp_path):
    trainable = started(tmp_path, Endless())
    trainable.train()
    assert trainable.train()["cause"] == Cause.CRASH


def test_an_unfinished_checkpoint_is_never_read(tmp_path):
    checkpoints.write(tmp_path, 1, lambda folder: (folder / "state").write_text("one"))
    with pytest.raises(OSError, match="disk"):
        checkpoints.write(tmp_path, 2, _fail)
    assert checkpoints.newest(tmp_path).name == "00000001"
    checkpoints.write(tmp_path, 2, lambda folder: (folder / "state").write_text("two"))
    newest = checkpoints.newest(tmp_path)
    assert checkpoints.budget_of(newest) == 2 and (newest / "state").read_text() == "two"
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["00000001", "00000002"]


def _fail(folder):
    (folder / "state").write_text("half")
    raise OSError("disk full")


def test_one_that_was_cut_off_touches_neither_what_a_later_start_wrote_nor_what_cannot_be_read(tmp_path):
    checkpoints.write(tmp_path, 1, lambda folder: (folder / "state").write_text("later"), incarnation=2)
    unreadable = tmp_path / "checkpoint" / "00000002" / checkpoints.MANIFEST
    unreadable.parent.mkdir()
    unreadable.write_text("{")
    checkpoints.write(tmp_path, 1, lambda folder: (folder / "state").write_text("cut off"), incarnation=1)
    assert (checkpoints.newest(tmp_path) / "state").read_text() == "later"
    assert unreadable.read_text() == "{"
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["00000001", "00000002"]


def test_results_are_plain_data(tmp_path):
    result = started(tmp_path).train()
    kept = {key: result[key] for key in ("budget", "metrics", "images", "seconds", "final", "score")}
    assert json.loads(json.dumps(kept)) == kept


def test_a_trial_that_fails_at_once_on_a_reused_worker_is_told_at_its_own_budget(tmp_path):
    trainable = started(tmp_path / "0", Curve(crash_above=1e-2))
    for _ in range(3):
        trainable.train()
    assert trainable.reset(config(tmp_path / "1", number=1, rate=0.1))
    assert trainable.train()["budget"] == 1


def test_a_worker_that_was_told_to_end_says_so_when_it_is_to_train_and_not_while_it_is_reset(tmp_path, monkeypatch):
    """Tune starts a trial again that fails as it runs, and drops one that fails while its worker is prepared."""
    trainable = started(tmp_path / "0")
    trainable.train()
    monkeypatch.setattr(ray_adapter._NOTICE, "asked", True)
    assert trainable.reset(config(tmp_path / "1", number=1))
    with pytest.raises(ray_adapter.Preempted):
        trainable.train()
    assert not (tmp_path / "1").exists(), "nothing of the trial was touched"
