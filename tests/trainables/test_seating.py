"""Which host a trial sits down at."""

from hypothesis import given
from hypothesis import strategies as st

from trainables.seating import Offer, in_order


def test_an_empty_host_goes_before_one_with_neighbours():
    assert in_order({"a": Offer(3, 4, True, 1.0, (1.0,)), "b": Offer(4, 4, True, 1.0)}) == ["b", "a"]


def test_neighbours_with_steps_as_long_go_before_others():
    offers = {"heavy": Offer(2, 4, True, 1.0, (8.0, 8.0)), "like": Offer(1, 4, True, 1.0, (1.0, 1.0, 1.0))}
    assert in_order(offers) == ["like", "heavy"]


def test_among_equals_the_one_with_more_room_goes_first():
    offers = {"full": Offer(1, 4, True, 2.0, (2.0, 2.0, 2.0)), "free": Offer(3, 4, True, 2.0, (2.0,))}
    assert in_order(offers) == ["free", "full"]


def test_a_base_that_can_be_shared_goes_before_an_unlike_one():
    offers = {"other": Offer(4, 4, False, 1.0), "same": Offer(1, 4, True, 1.0, (9.0, 9.0, 9.0))}
    assert in_order(offers) == ["same", "other"]


OFFERS = st.builds(
    Offer,
    st.integers(0, 8),
    st.integers(1, 8),
    st.booleans(),
    st.floats(0.1, 100),
    st.lists(st.floats(0.1, 100), max_size=8).map(tuple),
)


@given(st.dictionaries(st.text("abc", min_size=1), OFFERS))
def test_all_with_a_free_seat_are_there_once_and_no_other(offers):
    found = in_order(offers)
    assert sorted(found) == sorted(name for name, offer in offers.items() if offer.free)
