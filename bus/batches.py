"""Batches: many records of one partition in one piece, and the partition a ticket's records go to."""

import struct
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

from contracts.ports import OutgoingRecord

LARGEST_BATCH_BYTES = 128 * 1024  # far below what topics take, so that only a lone record is ever too large
_32_BITS = 0xFFFFFFFF


def batch_of(producer: AIOKafkaProducer, records: Iterable[OutgoingRecord], *, at_most: int) -> tuple[Any, int]:
    """A batch with the first of these records, one at least, and their number."""
    batch, count = producer.create_batch(), 0
    for record in records:
        headers = list(record.headers)
        key = record.ticket_id.encode()
        if count == at_most or batch.append(timestamp=None, key=key, value=record.value, headers=headers) is None:
            break
        count += 1
    batch.close()  # otherwise the producer adds other callers' records to it
    return batch, count


def partition_of(ticket_id: str, partitions: int) -> int:
    """The partition of a ticket, the same as Kafka's own clients choose for this key."""
    return (murmur2(ticket_id.encode()) & 0x7FFFFFFF) % partitions


def murmur2(key: bytes) -> int:
    """The hash that Kafka's clients partition by: 32-bit MurmurHash2 with their seed."""
    words = len(key) // 4
    mixed = 0x9747B28C ^ len(key)
    for word in struct.unpack_from(f"<{words}I", key):
        word = word * 0x5BD1E995 & _32_BITS
        mixed = (mixed * 0x5BD1E995 ^ (word ^ word >> 24) * 0x5BD1E995) & _32_BITS
    if tail := key[words * 4 :]:
        mixed = (mixed ^ int.from_bytes(tail, "little")) * 0x5BD1E995 & _32_BITS
    mixed = (mixed ^ mixed >> 13) * 0x5BD1E995 & _32_BITS
    return mixed ^ mixed >> 15
