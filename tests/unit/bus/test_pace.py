"""The pace of a worker."""

import pytest

from bus.pace import Pace


def test_the_pace_is_over_the_last_half_minute() -> None:
    pace = Pace(over_s=30)
    assert pace.at(0, 1000) == 0  # one count is no pace
    assert pace.at(10, 1100) == 10
    assert pace.at(30, 1100) == pytest.approx(100 / 30)
    assert pace.at(60, 1160) == 2  # since the count at 30
    assert pace.at(100, 1160) == 0
