"""Idempotent producers of one partition: which batch may come next, and which came before."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from kio.schema.errors import ErrorCode

from ops.broker.records import BatchHeader, BatchRefused

KEPT_BATCHES = 5
_MAX_PRODUCERS = 10_000  # per partition; the one that has been silent for longest is forgotten first


class Appended(NamedTuple):
    """A batch that was stored."""

    first_sequence: int
    last_sequence: int
    base_offset: int


@dataclass(slots=True)
class _Producer:
    epoch: int
    last_timestamp: int
    batches: deque[Appended] = field(default_factory=lambda: deque(maxlen=KEPT_BATCHES))


class Producers:
    """The last batches of every idempotent producer, rebuilt from the log at start."""

    def __init__(self) -> None:
        self._producers: OrderedDict[int, _Producer] = OrderedDict()

    def earlier(self, header: BatchHeader) -> int | None:
        """The base offset at which this very batch was stored before, if it was; None: it may be stored now.

        Raises BatchRefused: a fenced epoch, or a gap in the sequence. A producer that is not known
        (any more) may begin anywhere, as in Apache Kafka.
        """
        producer = self._producers.get(header.producer_id)
        if header.producer_id < 0 or producer is None:
            return None
        if header.producer_epoch < producer.epoch:
            raise BatchRefused(ErrorCode.invalid_producer_epoch, "a newer epoch of the producer has written")
        if header.producer_epoch > producer.epoch:
            _check_begins_anew(header)
            return None
        for batch in producer.batches:
            if (batch.first_sequence, batch.last_sequence) == (header.base_sequence, header.last_sequence):
                return batch.base_offset
        if header.base_sequence != (producer.batches[-1].last_sequence + 1) & 0x7FFFFFFF:
            raise BatchRefused(ErrorCode.out_of_order_sequence_number, "a batch before this one is missing")
        return None

    def appended(self, header: BatchHeader) -> None:
        """Note a batch that is stored at its base offset."""
        if header.producer_id < 0:
            return
        producer = self._producers.get(header.producer_id)
        if producer is None or producer.epoch != header.producer_epoch:
            producer = self._producers[header.producer_id] = _Producer(header.producer_epoch, header.max_timestamp)
        producer.last_timestamp = header.max_timestamp
        producer.batches.append(Appended(header.base_sequence, header.last_sequence, header.base_offset))
        self._producers.move_to_end(header.producer_id)
        if len(self._producers) > _MAX_PRODUCERS:
            self._producers.popitem(last=False)


def _check_begins_anew(header: BatchHeader) -> None:
    if header.base_sequence != 0:
        raise BatchRefused(ErrorCode.out_of_order_sequence_number, "a new epoch begins at sequence 0")
