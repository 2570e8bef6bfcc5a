import pytest
from aiokafka.errors import KafkaError

from bus.watchdog import Watchdog
from contracts.errors import EngineStuck


def test_a_partition_whose_fetches_stay_unanswered_is_told() -> None:
    watchdog = Watchdog(limit_s=60)
    watchdog.look({0: 1, 1: 1}, now_s=0)
    watchdog.look({0: 1, 1: 2}, now_s=60)
    with pytest.raises(KafkaError, match=r"\[0\]"):
        watchdog.look({0: 1, 1: 2}, now_s=61)


def test_a_partition_never_answered_for_is_told_too() -> None:
    watchdog = Watchdog(limit_s=60)
    watchdog.look({0: None}, now_s=0)
    with pytest.raises(KafkaError):
        watchdog.look({0: None}, now_s=61)


def test_a_partition_that_was_paused_or_away_starts_anew() -> None:
    watchdog = Watchdog(limit_s=60)
    watchdog.look({0: 1}, now_s=0)
    watchdog.look({}, now_s=30)
    watchdog.look({0: 1}, now_s=90)


def test_the_third_client_in_a_row_that_goes_quiet_ends_the_process() -> None:
    """A consumer wedged for good, with nothing that says so (aio-libs/aiokafka#1154, #703)."""
    watchdog = Watchdog(limit_s=60)
    for client in range(2):
        watchdog.look({0: 1}, now_s=100 * client)
        with pytest.raises(KafkaError):
            watchdog.look({0: 1}, now_s=100 * client + 61)
    watchdog.look({0: 1}, now_s=200)
    with pytest.raises(EngineStuck):
        watchdog.look({0: 1}, now_s=261)


def test_a_client_that_works_again_clears_the_count() -> None:
    watchdog = Watchdog(limit_s=60)
    for client in range(4):
        watchdog.look({0: 1}, now_s=100 * client)
        watchdog.look({0: 2}, now_s=100 * client + 1)
        with pytest.raises(KafkaError):
            watchdog.look({0: 2}, now_s=100 * client + 62)
