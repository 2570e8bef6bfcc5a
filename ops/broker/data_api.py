"""The APIs that move records: Produce, Fetch, ListOffsets, InitProducerId."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

from kio.schema.errors import ErrorCode

from ops.broker.log import PartitionLog
from ops.broker.protocol import Fields, Malformed, Request
from ops.broker.records import BatchRefused
from ops.broker.topics import Topics

logger = logging.getLogger(__name__)

_MAX_FETCH_BYTES = 16 * 1024 * 1024  # of one answer, whatever the client allows; bounds memory a connection
_EARLIEST, _LATEST = -2, -1


class DataApi:
    """Answers over the topics' logs."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    async def produce(self, request: Request, _client_host: str) -> Fields | None:
        """Append batches; acks=0 gets no answer, and an error then ends the connection."""
        body = request.body
        answers = [
            {
                "name": topic.name,
                "partition_responses": [self._append(body, topic.name, part) for part in topic.partition_data],
            }
            for topic in body.topic_data
        ]
        if body.acks != 0:
            return {"responses": answers}
        if any("error_code" in part for topic in answers for part in topic["partition_responses"]):
            raise Malformed("a produce request without acknowledgement failed")
        return None

    def _append(self, body: Any, topic: str, part: Any) -> Fields:
        log = self._topics.log(topic, part.index)
        if body.acks not in (-1, 0, 1):
            return _failed(part.index, ErrorCode.invalid_required_acks, "acks is 0, 1 or all")
        if body.transactional_id is not None:
            return _failed(part.index, ErrorCode.invalid_txn_state, "transactions are not supported")
        if log is None:
            return _failed(part.index, ErrorCode.unknown_topic_or_partition, "no such partition")
        try:
            base_offset = log.append(part.records or b"")
        except BatchRefused as error:
            return _failed(part.index, error.code, str(error))
        except OSError as error:
            logger.error("cannot store a batch: %s-%d: %s", topic, part.index, error)
            return _failed(part.index, ErrorCode.kafka_storage_error, "the batch could not be stored")
        return {"index": part.index, "base_offset": base_offset, "log_start_offset": log.start_offset}

    async def fetch(self, request: Request, _client_host: str) -> Fields:
        """Read on; waits for `min_bytes`, but no longer than the client allows. There are no fetch sessions."""
        news = asyncio.Event()
        with ExitStack() as watching, suppress(TimeoutError):
            for _, _, log in self._wanted(request.body):
                if log is not None:
                    watching.enter_context(log.watched_by(news))
            async with asyncio.timeout(request.body.max_wait.total_seconds()):
                while not self._is_ready(request.body):
                    news.clear()
                    await news.wait()
        return self._read(request.body)

    def _wanted(self, body: Any) -> Iterator[tuple[str, Any, PartitionLog | None]]:
        return ((topic.topic, part, self._topics.log(topic.topic, part.partition)) for topic in body.topics
                for part in topic.partitions)  # fmt: skip

    def _is_ready(self, body: Any) -> bool:
        available = 0
        for _, part, log in self._wanted(body):
            if log is None or not log.has(part.fetch_offset):
                return True
            available += min(log.bytes_from(part.fetch_offset), part.partition_max_bytes)
        return available >= int(body.min_bytes)

    def _read(self, body: Any) -> Fields:
        left = min(body.max_bytes, _MAX_FETCH_BYTES)
        nothing_yet = True
        topics: dict[str, list[Fields]] = {}
        for topic, part, log in self._wanted(body):
            answer = _read_partition(log, part, max_bytes=min(left, part.partition_max_bytes), first=nothing_yet)
            topics.setdefault(topic, []).append(answer)
            nothing_yet = nothing_yet and not answer["records"]
            left -= len(answer["records"])
        return {"responses": [{"topic": topic, "partitions": parts} for topic, parts in topics.items()]}

    async def list_offsets(self, request: Request, _client_host: str) -> Fields:
        """The first and the next offset, or the first of a time."""
        topics = [
            {"name": topic.name, "partitions": [self._offset(topic.name, part) for part in topic.partitions]}
            for topic in request.body.topics
        ]
        return {"topics": topics}

    def _offset(self, topic: str, part: Any) -> Fields:
        log = self._topics.log(topic, part.partition_index)
        answer = {"partition_index": part.partition_index, "offset": -1, "timestamp": -1}
        if log is None:
            return answer | {"error_code": ErrorCode.unknown_topic_or_partition}
        if part.timestamp in (_EARLIEST, _LATEST):
            return answer | {"offset": log.start_offset if part.timestamp == _EARLIEST else log.next_offset}
        if part.timestamp < 0:
            return answer | {"error_code": ErrorCode.unsupported_for_message_format}
        if (found := log.offset_of_time(part.timestamp)) is None:
            return answer
        return answer | {"offset": found[0], "timestamp": found[1]}

    async def init_producer_id(self, request: Request, _client_host: str) -> Fields:
        """A new id for an idempotent producer; transactions are refused."""
        if request.body.transactional_id is not None:
            return {
                "error_code": ErrorCode.transactional_id_authorization_failed,
                "producer_id": -1,
                "producer_epoch": -1,
            }
        return {"producer_id": self._topics.new_producer_id(), "producer_epoch": 0}


def _failed(index: int, code: ErrorCode, why: str) -> Fields:
    return {"index": index, "error_code": code, "error_message": why, "base_offset": -1}


def _read_partition(log: PartitionLog | None, part: Any, *, max_bytes: int, first: bool) -> dict[str, Any]:
    answer = {"partition_index": part.partition, "records": b"", "high_watermark": -1}
    if log is None:
        return answer | {"error_code": ErrorCode.unknown_topic_or_partition}
    answer |= {"high_watermark": log.next_offset, "last_stable_offset": log.next_offset}
    answer |= {"log_start_offset": log.start_offset}
    if not log.has(part.fetch_offset):
        return answer | {"error_code": ErrorCode.offset_out_of_range}
    return answer | {"records": log.read(part.fetch_offset, max_bytes, at_least_one=first)}
