"""A place to work at, as the supervisor describes it to the worker's process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Station:
    """What a worker is told when it starts, but for who it is."""

    kind: str  # asker | carrier
    group: str
    topic: str
    bootstrap: str
    dsn: str
    redis_url: str
    folder: str
    lanes: int
