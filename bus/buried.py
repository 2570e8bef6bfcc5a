"""Dead letters that stop no ticket: the record is done with, but neither inbox nor parking knows of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from bus.connection import BROKEN
from bus.range_reader import RangeReader
from contracts.lag_ports import Place

_TAIL = 2_000  # letters of a partition that are read at first: those of records above a commit are young


class Buried:
    """The places of records that became dead letters, as a group's dead-letter topic tells them."""

    def __init__(self, reader: RangeReader) -> None:
        self._reader = reader
        self._read_to: dict[int, int] = {}  # by partition of the dead-letter topic
        self._places: set[Place] = set()

    async def look(self, partitions: Iterable[int]) -> set[Place]:
        """The places known by now. A partition of letters that cannot be asked is left for the next look."""
        begins, ends = {}, {}
        for partition in partitions:
            try:
                bounds = await self._reader.bounds(partition)
            except BROKEN:
                continue
            begins[partition] = max(self._read_to.get(partition, bounds.end - _TAIL), bounds.start)
            ends[partition] = bounds.end
        await self._reader.read(begins, ends, self._take)
        return self._places

    def forget_below(self, begins: Mapping[int, int]) -> None:
        """Let go of records that are committed."""
        self._places = {place for place in self._places if place.offset >= begins.get(place.partition, 0)}

    def _take(self, partition: int, letters: Iterable[Any], read_to: int) -> bool:
        self._places.update(place for letter in letters if (place := _place_of(letter)) is not None)
        self._read_to[partition] = read_to
        return True


def _place_of(letter: Any) -> Place | None:
    headers = dict(letter.headers)
    numbers = [headers.get(f"kafka_dlt-original-{name}") for name in ("partition", "offset", "timestamp")]
    try:
        return Place(*(int(number) for number in numbers if number is not None))
    except (ValueError, TypeError):  # somebody else's
        return None
