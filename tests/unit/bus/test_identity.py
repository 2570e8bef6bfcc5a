"""Which topic bears a name, as brokers tell it."""

import pytest

from bus.identity import Identity

OLD, NEW, NO_ID = (1, 1), (1, 2), (0, 0)


@pytest.fixture
def identity() -> Identity:
    identity = Identity("t")
    identity.found(OLD)
    return identity


def test_the_first_topic_that_is_found_is_the_one_that_is_read(identity: Identity) -> None:
    assert not Identity("t").is_another()
    assert not identity.is_another()


def test_a_topic_that_is_away_is_no_other(identity: Identity) -> None:
    identity.found(NO_ID)
    assert not identity.is_another()


def test_one_made_anew_is_another_until_its_offsets_are_dealt_with(identity: Identity) -> None:
    identity.found(NO_ID)
    identity.found(NEW)
    identity.found(NEW)
    assert identity.is_another()
    identity.accept()
    identity.found(NEW)
    assert not identity.is_another()


def test_a_broker_that_still_tells_of_the_old_one_brings_it_not_back(identity: Identity) -> None:
    identity.found(NEW)
    identity.accept()
    identity.found(OLD)
    assert not identity.is_another()
