"""Errors cross from a worker to whoever reads them."""

import pickle

from trainables.protocol import Cause, TrialFailure
from tune_lora.errors import InputErrors


def test_several_mistakes_found_on_a_worker_read_as_they_were_written():
    received = pickle.loads(pickle.dumps(InputErrors(["a.png: no caption", "b.png: no caption"])))
    assert received.mistakes == ("a.png: no caption", "b.png: no caption")
    assert str(received) == "a.png: no caption\nb.png: no caption"


def test_a_failure_on_a_worker_keeps_its_cause_and_its_metrics():
    received = pickle.loads(pickle.dumps(TrialFailure(Cause.OUT_OF_MEMORY, "asked for 3 GiB", {"loss": 0.5})))
    assert (received.cause, received.message) == (Cause.OUT_OF_MEMORY, "asked for 3 GiB")
    assert received.metrics == {"loss": 0.5}
    assert str(received) == "asked for 3 GiB"
