"""A host without Ray: trials sit down, are trained, rest, leave, fail and go on, and none of them waits for another."""

import threading
import time
from dataclasses import dataclass, field
from itertools import repeat

import pytest

from trainables import pack_host
from trainables.curve import Curve
from trainables.pack_guests import Said
from trainables.pack_host import PackHost
from trainables.protocol import Cause, Report, Stepped, TrialContext, TrialFailure

PATIENCE = 20.0


def trial(folder, number, rate=1e-3, epochs=3, **more):
    place = folder / str(number)
    place.mkdir(exist_ok=True)
    return TrialContext({"learning_rate": rate, "max_train_epochs": epochs, **more}, place, seed=number)


@pytest.fixture
def hosts():
    opened = []

    def host(trainer=None, seats=4):
        opened.append(PackHost(trainer or Curve(), seats))
        return opened[-1]

    yield host
    for one in opened:
        one.close()


def finish(host, token):
    """All reports of a trial to its end."""
    found = []
    while not found or not found[-1].report.final:
        found.append(host.next(token, PATIENCE))
        assert found[-1].report is not None, found[-1]
    return found


def alone(context, trainer=None):
    return [report.metrics for report in (trainer or Curve()).run(context)]


def test_each_trial_says_what_it_would_say_alone(hosts, tmp_path):
    host = hosts()
    contexts = [trial(tmp_path, number, rate=10.0 ** -(number + 1), epochs=number + 2) for number in range(4)]
    tokens = [host.join(context) for context in contexts]
    for context, token in zip(contexts, tokens, strict=True):
        assert [said.report.metrics for said in finish(host, token)] == alone(context)


def test_a_trial_rests_after_its_report_while_the_others_train_on(hosts, tmp_path):
    host = hosts()
    first, second = host.join(trial(tmp_path, 1)), host.join(trial(tmp_path, 2))
    assert host.next(first, PATIENCE).report.budget == 1
    finish(host, second)
    assert host.next(first, PATIENCE).report.budget == 2


def test_a_seat_that_was_left_is_the_next_ones_while_the_others_train(hosts, tmp_path):
    host = hosts(seats=2)
    first, _ = host.join(trial(tmp_path, 1)), host.join(trial(tmp_path, 2))
    assert host.join(trial(tmp_path, 3)) is None
    host.leave(first)
    third = host.join(trial(tmp_path, 3))
    assert third is not None
    finish(host, third)


def test_leaving_twice_or_from_nowhere_is_no_mistake(hosts, tmp_path):
    host = hosts()
    token = host.join(trial(tmp_path, 1))
    host.leave(token)
    host.leave(token)
    assert host.join(trial(tmp_path, 2)) is not None


def test_a_checkpoint_is_that_of_the_report_and_the_trial_goes_on_from_it(hosts, tmp_path):
    host = hosts()
    context = trial(tmp_path, 1, epochs=4)
    token = host.join(context)
    for _ in range(2):
        host.next(token, PATIENCE)
    saved = tmp_path / "saved"
    saved.mkdir()
    host.save(token, saved)
    other = hosts()
    again = TrialContext(context.params, context.folder, context.seed, restore=saved)
    rest = finish(other, other.join(again))
    assert [said.report.budget for said in rest] == [3, 4]
    assert [said.report.metrics for said in rest] == alone(context)[2:]


def test_a_nan_ends_its_own_trial_only(hosts, tmp_path):
    host = hosts(Curve(nan_above=1e-2))
    bad, good = host.join(trial(tmp_path, 1, rate=0.1)), host.join(trial(tmp_path, 2))
    assert host.next(bad, PATIENCE).report.budget == 1
    failed = host.next(bad, PATIENCE)
    assert failed.failure.cause is Cause.NAN_LOSS
    assert len(finish(host, good)) == 3


def test_the_seat_of_a_failed_trial_is_free_at_once(hosts, tmp_path):
    host = hosts(Curve(nan_above=1e-2), seats=1)
    bad = host.join(trial(tmp_path, 1, rate=0.1))
    host.next(bad, PATIENCE)
    host.next(bad, PATIENCE)
    assert host.join(trial(tmp_path, 2)) is not None


def test_a_trial_that_is_started_again_takes_its_own_seat_over(hosts, tmp_path):
    host = hosts(seats=1)
    lost = host.join(trial(tmp_path, 1))
    again = host.join(trial(tmp_path, 1))
    assert again is not None
    assert host.next(lost, PATIENCE).again
    assert len(finish(host, again)) == 3


def test_a_trial_that_nobody_asks_about_gives_its_seat_back(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_host, "SILENCE_SECONDS", 0.2)
    host = hosts(seats=1)
    gone = host.join(trial(tmp_path, 1))
    deadline = time.monotonic() + PATIENCE
    while (token := host.join(trial(tmp_path, 2))) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert token is not None
    assert "nobody had asked" in host.next(gone, PATIENCE).again


def test_trials_that_cannot_share_a_base_are_trained_beside_each_other(hosts, tmp_path):
    host = hosts()
    first, other = host.join(trial(tmp_path, 1)), host.join(trial(tmp_path, 2, precision="bf16"))
    assert not host.offer(trial(tmp_path, 3, precision="fp16")).fits
    assert host.offer(trial(tmp_path, 3, precision="bf16")).fits
    assert len(finish(host, first)) == len(finish(host, other)) == 3


def test_seconds_of_a_step_are_shared_and_none_is_lost(hosts, tmp_path):
    host = hosts(Curve(seconds=0.05))
    tokens = [host.join(trial(tmp_path, number)) for number in range(3)]
    found = {token: [] for token in tokens}

    def ask(token):
        found[token] = finish(host, token)

    threads = [threading.Thread(target=ask, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shares = [sum(said.seconds for said in said_of) for said_of in found.values()]
    # 3 trials of 3 epochs: 9 steps of 0.05 s if each had trained alone, 3 if always together.
    assert all(said.seconds > 0 for said_of in found.values() for said in said_of)
    assert 3 * 0.05 - 1e-9 <= sum(shares) <= 9 * 0.05 + 1e-9
    steps = sum(shares) / 0.05
    assert steps == pytest.approx(round(steps))


def test_a_host_that_was_told_to_end_sends_everybody_away(hosts, tmp_path):
    host = hosts(Curve(seconds=0.1))
    tokens = [host.join(trial(tmp_path, number)) for number in range(2)]
    host.preempt()
    said = [host.next(token, PATIENCE) for token in tokens]
    assert all(one.preempted or one.report for one in said)
    assert host.join(trial(tmp_path, 5)) is None
    assert host.offer(trial(tmp_path, 5)).free == 0


def test_a_report_of_a_host_that_was_told_to_end_is_fetched_and_saved_before_its_trial_goes_elsewhere(hosts, tmp_path):
    host = hosts()
    token = host.join(trial(tmp_path, 1))
    deadline = time.monotonic() + PATIENCE
    while not host._guests[token].is_resting and time.monotonic() < deadline:
        time.sleep(0.01)
    host.preempt()
    assert host.next(token, PATIENCE).report.budget == 1
    host.save(token, tmp_path)
    assert (tmp_path / "curve.json").is_file()
    assert host.next(token, PATIENCE).preempted
    assert host.is_empty


# --- what befalls all of them -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Troubled:
    """Packs in which more than `fits` trials are too many for the memory, and the trial `culprit` breaks each step that
    it takes part in, at its second epoch. Nobody gets on before `gathers` trials have sat there at once."""

    fits: int = 99
    culprit: int = -1
    gathers: int = 1

    def pack(self, context):
        return _TroubledPack(self)


@dataclass
class _TroubledPack:
    trainer: Troubled
    seated: dict = field(default_factory=dict)
    most: int = 0

    @property
    def slots(self):
        return tuple(self.seated)

    def differences(self, context):
        return []

    def weight(self, context):
        return 1.0

    def join(self, context):
        slot = max(self.seated, default=-1) + 1
        done = int((context.restore / "done").read_text()) if context.restore else 0
        self.seated[slot] = [context, done]
        self.most = max(self.most, len(self.seated))
        return slot

    def leave(self, slot):
        del self.seated[slot]

    def close(self):
        self.seated.clear()

    def step(self, resting=frozenset()):
        stepping = [slot for slot in self.seated if slot not in resting and self.seated[slot][1] < 3]
        time.sleep(0.1)  # in which the others sit down
        if self.most < self.trainer.gathers:
            return Stepped()
        if len(stepping) > self.trainer.fits:
            raise TrialFailure(Cause.OUT_OF_MEMORY, "no room")
        if any(self.seated[slot][0].seed == self.trainer.culprit and self.seated[slot][1] == 1 for slot in stepping):
            raise ValueError("a bug of one of them")
        stepped = Stepped()
        for slot in stepping:
            self.seated[slot][1] += 1
            done = self.seated[slot][1]
            stepped.seconds[slot] = 1.0
            stepped.reports[slot] = Report(
                done, {}, lambda folder, done=done: (folder / "done").write_text(str(done)), final=done == 3
            )
        return stepped


def lived(host, context, log):
    """What a trial's own process does: sits down again where it is told to, from its newest checkpoint."""
    suspect, saved = False, 0
    while True:
        token = host.join(context, is_suspect=suspect)
        while token is None:
            time.sleep(0.02)
            token = host.join(context, is_suspect=suspect)
        while True:
            said = host.next(token, PATIENCE)
            log.append(said)
            if said.report is None:
                break
            saved += 1
            place = context.folder / str(saved)
            place.mkdir()
            host.save(token, place)
            context = TrialContext(context.params, context.folder, context.seed, restore=place)
            if said.report.final:
                host.leave(token)
                return
        if not said.again:
            return
        suspect = said.suspect


def all_lived(host, contexts):
    logs = [[] for _ in contexts]
    threads = [threading.Thread(target=lived, args=pair) for pair in zip(repeat(host), contexts, logs, strict=False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return logs


def budgets(log):
    return [said.report.budget for said in log if said.report]


def test_where_the_memory_is_short_fewer_sit_down_and_all_come_to_their_end(hosts, tmp_path):
    host = hosts(Troubled(fits=2, gathers=4), seats=4)
    logs = all_lived(host, [trial(tmp_path, number) for number in range(4)])
    assert [budgets(log) for log in logs] == [[1, 2, 3]] * 4
    assert host.seats < 4
    assert not any(said.failure for log in logs for said in log)


def test_a_lack_of_memory_alone_is_the_trials_own(hosts, tmp_path):
    host = hosts(Troubled(fits=0), seats=4)
    said = host.next(host.join(trial(tmp_path, 1)), PATIENCE)
    assert said.failure.cause is Cause.OUT_OF_MEMORY


def test_a_bug_is_found_to_be_the_one_trials_that_has_it(hosts, tmp_path):
    host = hosts(Troubled(culprit=2), seats=4)
    logs = all_lived(host, [trial(tmp_path, number) for number in range(4)])
    assert isinstance(logs[2][-1].error, ValueError)
    assert budgets(logs[2]) == [1]
    assert [budgets(log) for index, log in enumerate(logs) if index != 2] == [[1, 2, 3]] * 3
    assert any("a bug of one of them" in note for note in logs[2][-1].error.__notes__)


def test_what_is_said_of_a_trial_that_failed_can_be_sent_to_another_process():
    import pickle

    said = Said(1.0, failure=TrialFailure(Cause.NAN_LOSS, "nan", {"loss": 1.0}))
    again = pickle.loads(pickle.dumps(said))
    assert again.failure.cause is Cause.NAN_LOSS and again.failure.metrics == {"loss": 1.0}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_host_that_breaks_says_so_and_keeps_nobody_waiting(tmp_path):
    broken = threading.Event()
    host = PackHost(Curve(), 2, at_fault=broken.set)
    host._rooms = None  # whatever may be wrong with it
    with pytest.raises(TypeError):
        host.join(trial(tmp_path, 1))
    assert broken.wait(PATIENCE)
    host._thread.join(PATIENCE)  # its error is this test's, not the next one's
