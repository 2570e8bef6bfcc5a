"""A worker of the drill: `python -m tests.drill.worker CONFIG`. The real engine, with a scripted agent in it."""

import datetime
import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Run the worker that the file describes."""
    config = json.loads(Path(sys.argv[1]).read_text())
    if config["skew_s"]:
        mistake_the_time(config["skew_s"])
    from tests.drill.staff import Config, run  # only now: it binds the clock

    run(Config(**config))


def mistake_the_time(skew_s: float) -> None:
    """Make this process believe it is later (or earlier) than it is. Monotonic time stays as it is."""
    right_time, right = time.time, datetime.datetime

    class LikeTheRightOne(type):
        def __instancecheck__(cls, found: object) -> bool:
            return isinstance(found, right)

    class Mistaken(datetime.datetime, metaclass=LikeTheRightOne):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return right.now(tz) + datetime.timedelta(seconds=skew_s)

    time.time = lambda: right_time() + skew_s
    datetime.datetime = Mistaken  # type: ignore[misc]


if __name__ == "__main__":
    main()
