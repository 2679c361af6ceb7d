"""An epoch shows every image as often as its repeats, a batch out of one bucket."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trainables.lora.batches import batches_per_epoch, epoch_batches
from trainables.lora.dataset import CaptionedImage, Dataset, DatasetSettings, Showing

TARGETS = st.sampled_from([(64, 64), (96, 48), (48, 96)])
IMAGES = st.builds(
    lambda target, repeats: CaptionedImage(Path("a.png"), "a", "00", target, target, Showing(repeats=repeats)),
    TARGETS,
    st.integers(1, 5),
)
DATA = st.lists(IMAGES, min_size=1, max_size=30).map(lambda images: Dataset(tuple(images), (), DatasetSettings()))


@given(DATA, st.integers(1, 9), st.integers())
def test_every_image_comes_as_often_as_its_repeats_and_nothing_is_lost(data, batch_size, seed):
    batches = epoch_batches(data, batch_size, random.Random(seed))
    counts = Counter(row for batch in batches for row in batch)
    assert counts == {row: image.repeats for row, image in enumerate(data.train)}
    assert counts.total() == data.samples_per_epoch


@given(DATA, st.integers(1, 9), st.integers())
def test_a_batch_is_of_one_bucket_and_full_but_for_the_bucket_s_last(data, batch_size, seed):
    smaller: Counter = Counter()
    for batch in epoch_batches(data, batch_size, random.Random(seed)):
        (target,) = {data.train[row].target for row in batch}
        assert 1 <= len(batch) <= batch_size
        smaller[target] += len(batch) < batch_size
    assert max(smaller.values()) <= 1


@given(DATA, st.integers(1, 9), st.integers())
def test_how_many_batches_there_are_is_known_beforehand(data, batch_size, seed):
    assert batches_per_epoch(data, batch_size) == len(epoch_batches(data, batch_size, random.Random(seed)))


@given(DATA, st.integers(1, 9), st.integers())
def test_the_order_follows_from_the_seed_alone(data, batch_size, seed):
    random.seed(0)
    once = epoch_batches(data, batch_size, random.Random(seed))
    random.seed(1)
    assert epoch_batches(data, batch_size, random.Random(seed)) == once


def test_epochs_differ_and_buckets_are_mixed():
    targets = [(64, 64)] * 20 + [(96, 48)] * 20
    images = [CaptionedImage(Path("a.png"), "a", "00", target, target) for target in targets]
    data, rng = Dataset(tuple(images), (), DatasetSettings()), random.Random(0)
    first, second = epoch_batches(data, 2, rng), epoch_batches(data, 2, rng)
    assert first != second
    of_bucket = [data.train[batch[0]].target for batch in first]
    changes = sum(a != b for a, b in itertools.pairwise(of_bucket))
    assert changes > 4  # in two blocks there would be one
