from bus.watchdog import Watchdog


def test_a_partition_whose_fetches_stay_unanswered_is_told() -> None:
    watchdog = Watchdog(limit_s=60)
    assert watchdog.stalled({0: 1, 1: 1}, now_s=0) == []
    assert watchdog.stalled({0: 1, 1: 2}, now_s=60) == []
    assert watchdog.stalled({0: 1, 1: 2}, now_s=61) == [0]


def test_a_partition_never_answered_for_is_told_too() -> None:
    watchdog = Watchdog(limit_s=60)
    watchdog.stalled({0: None}, now_s=0)
    assert watchdog.stalled({0: None}, now_s=61) == [0]


def test_a_partition_that_was_paused_or_away_starts_anew() -> None:
    watchdog = Watchdog(limit_s=60)
    watchdog.stalled({0: 1}, now_s=0)
    watchdog.stalled({}, now_s=30)
    assert watchdog.stalled({0: 1}, now_s=90) == []
