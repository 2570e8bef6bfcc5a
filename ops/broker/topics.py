"""The topics: names, settings, partitions. What is on file here exists; what is not does not."""

import base64
import logging
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kio.schema.errors import ErrorCode

from ops.broker.journal import Change, Journal
from ops.broker.log import LogLimits, PartitionLog

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MAX_PARTITIONS = 1000  # of one topic; each holds a file open
_PRODUCER_IDS_AT_ONCE = 1000
_NUMBERS = {
    "retention.ms": (7 * 24 * 60 * 60 * 1000, -1),
    "retention.bytes": (-1, -1),
    "segment.bytes": (64 * 1024 * 1024, 14),
    "max.message.bytes": (2 * 1024 * 1024, 0),
    # Kept and shown, without effect here.
    "delete.retention.ms": (24 * 60 * 60 * 1000, 0),
    "segment.ms": (7 * 24 * 60 * 60 * 1000, 1),
    "min.insync.replicas": (1, 1),
    "min.compaction.lag.ms": (0, 0),
    "max.compaction.lag.ms": (2**63 - 1, 1),
}  # name: default, smallest value
_WORDS = {
    "cleanup.policy": ("delete", {"delete", "compact", "compact,delete", "delete,compact"}),
    "compression.type": ("producer", {"producer"}),
    "message.timestamp.type": ("CreateTime", {"CreateTime"}),
}  # name: default, values that are known


class TopicRefused(Exception):
    """The topic is left as it is; `code` is what the client is told."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(slots=True)
class Topic:
    """A topic; `settings` are those that somebody set."""

    name: str
    settings: dict[str, str]
    limits: LogLimits
    logs: list[PartitionLog]


class Topics:
    """All topics of a data directory, and the few other facts that must survive a restart."""

    def __init__(self, data_dir: Path, *, fsync: bool) -> None:
        self.cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        self.defaults = _defaults()
        self._folder = data_dir / "topics"
        self._fsync = fsync
        self._topics: dict[str, Topic] = {}
        self._declared: dict[str, tuple[int, dict[str, str]]] = {}
        self._starts: dict[tuple[str, int], int] = {}
        self._next_producer_id = self._reserved_producer_ids = 1
        self._journal = Journal(data_dir / "topics.journal", self._snapshot, fsync=fsync)

    def open(self) -> None:
        """Read what is on file, remove what belongs to no topic, and recover every log."""
        self._folder.mkdir(exist_ok=True)
        self._journal.open(self._apply)
        for folder in self._folder.iterdir():
            name, _, partition = folder.name.rpartition("-")
            if partition.isdigit() and int(partition) >= self._declared.get(name, (0, {}))[0]:
                logger.warning("removed the rest of a deleted topic: %s", folder.name)
                shutil.rmtree(folder)
        for name, (partitions, settings) in self._declared.items():
            self._opened(name, partitions, settings)

    def close(self) -> None:
        """Flush everything to the disk."""
        for log in self.logs():
            log.close()
        self._journal.close()

    def _apply(self, change: Change) -> None:
        match change["op"]:
            case "cluster":
                self.cluster_id = change["id"]
            case "producers":
                self._next_producer_id = self._reserved_producer_ids = change["next"]
            case "topic":
                self._declared[change["name"]] = change["partitions"], change["settings"]
            case "gone":
                del self._declared[change["name"]]
                self._starts = {key: start for key, start in self._starts.items() if key[0] != change["name"]}
            case "start":
                self._starts[change["topic"], change["partition"]] = change["offset"]

    def _snapshot(self) -> Iterator[Change]:
        yield {"op": "cluster", "id": self.cluster_id}
        yield {"op": "producers", "next": self._reserved_producer_ids}
        for name, (partitions, settings) in self._declared.items():
            yield {"op": "topic", "name": name, "partitions": partitions, "settings": settings}
        for (name, partition), offset in self._starts.items():
            yield {"op": "start", "topic": name, "partition": partition, "offset": offset}

    def _change(self, change: Change) -> None:
        self._journal.append(change)
        self._apply(change)

    def _declare(self, name: str, partitions: int, settings: dict[str, str]) -> None:
        self._change({"op": "topic", "name": name, "partitions": partitions, "settings": settings})

    def _opened(self, name: str, partitions: int, settings: dict[str, str]) -> Topic:
        topic = self._topics[name] = Topic(name, settings, _limits(self.defaults | settings), [])
        self._add_logs(topic, partitions)
        return topic

    def _add_logs(self, topic: Topic, partitions: int) -> None:
        for index in range(len(topic.logs), partitions):
            start = self._starts.get((topic.name, index), 0)
            folder = self._folder / f"{topic.name}-{index}"
            topic.logs.append(PartitionLog(folder, topic.limits, start_offset=start, fsync=self._fsync))

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def get(self, name: str) -> Topic | None:
        """The topic of that name, if there is one."""
        return self._topics.get(name)

    def log(self, name: str, partition: int) -> PartitionLog | None:
        """The log of a partition, if there is one."""
        topic = self._topics.get(name)
        return topic.logs[partition] if topic and 0 <= partition < len(topic.logs) else None

    def logs(self) -> Iterator[PartitionLog]:
        """Every partition's log."""
        return (log for topic in self for log in topic.logs)

    def create(self, name: str, partitions: int, settings: dict[str, str], *, dry_run: bool) -> None:
        """Add a topic. Raises TopicRefused."""
        if not valid_name(name):
            raise TopicRefused(ErrorCode.invalid_topic_exception, "1 to 249 letters, digits, '.', '_' or '-'")
        if name in self._topics:
            raise TopicRefused(ErrorCode.topic_already_exists, f"Topic '{name}' already exists.")
        _check_partitions(partitions)
        _check_settings(settings)
        if not dry_run:
            self._declare(name, partitions, settings)
            self._opened(name, partitions, settings)

    def delete(self, name: str) -> None:
        """Remove a topic and its records. Raises TopicRefused."""
        self._must_have(name)
        self._change({"op": "gone", "name": name})
        for log in self._topics.pop(name).logs:
            log.delete()

    def grow(self, name: str, partitions: int, *, dry_run: bool) -> None:
        """Raise the number of partitions. Raises TopicRefused."""
        topic = self._must_have(name)
        _check_partitions(partitions)
        if partitions <= len(topic.logs):
            why = f"The topic currently has {len(topic.logs)} partition(s); {partitions} would not be an increase."
            raise TopicRefused(ErrorCode.invalid_partitions, why)
        if not dry_run:
            self._declare(name, partitions, topic.settings)
            self._add_logs(topic, partitions)

    def configure(self, name: str, settings: dict[str, str], *, dry_run: bool) -> None:
        """Replace the settings that were set before. Raises TopicRefused."""
        topic = self._must_have(name)
        _check_settings(settings)
        if dry_run:
            return
        self._declare(name, len(topic.logs), settings)
        topic.settings = settings
        fresh = _limits(self.defaults | settings)
        for field in LogLimits.__slots__:
            setattr(topic.limits, field, getattr(fresh, field))

    def delete_records(self, name: str, partition: int, before: int) -> int:
        """Forget records before an offset (-1: all there are); returns the new start. Raises TopicRefused."""
        log = self.log(name, partition)
        if log is None:
            raise TopicRefused(ErrorCode.unknown_topic_or_partition, "no such partition")
        offset = log.next_offset if before == -1 else before
        if not 0 <= offset <= log.next_offset:
            raise TopicRefused(ErrorCode.offset_out_of_range, "there are no records up to there")
        if offset > log.start_offset:
            self._change({"op": "start", "topic": name, "partition": partition, "offset": offset})
            log.delete_before(offset)
        return log.start_offset

    def new_producer_id(self) -> int:
        """An id that was never given out in this data directory."""
        if self._next_producer_id == self._reserved_producer_ids:
            following = self._reserved_producer_ids + _PRODUCER_IDS_AT_ONCE
            self._journal.append({"op": "producers", "next": following})
            self._reserved_producer_ids = following
        self._next_producer_id += 1
        return self._next_producer_id - 1

    def enforce_retention(self, now_ms: int) -> None:
        """Delete what is older or more than the topics' settings allow."""
        for log in self.logs():
            log.enforce_retention(now_ms)
        self._journal.compact_if_large()

    def _must_have(self, name: str) -> Topic:
        if name not in self._topics:
            raise TopicRefused(ErrorCode.unknown_topic_or_partition, f"no topic '{name}'")
        return self._topics[name]


def valid_name(name: str) -> bool:
    """Whether a topic may be called so."""
    return bool(_NAME.fullmatch(name)) and name not in (".", "..")


def _defaults() -> dict[str, str]:
    """What holds for a topic on which nothing was set."""
    numbers = {name: str(default) for name, (default, _) in _NUMBERS.items()}
    return numbers | {name: default for name, (default, _) in _WORDS.items()}


def _check_settings(settings: Mapping[str, str]) -> None:
    """Raises TopicRefused: a setting is unknown, or its value is."""
    for name, value in settings.items():
        if name in _NUMBERS:
            if not re.fullmatch(r"-?\d{1,19}", value) or int(value) < _NUMBERS[name][1]:
                raise TopicRefused(ErrorCode.invalid_config, f"Invalid value {value} for configuration {name}")
        elif name not in _WORDS or value not in _WORDS[name][1]:
            raise TopicRefused(ErrorCode.invalid_config, f"Unknown topic config {name}={value}")


def _check_partitions(partitions: int) -> None:
    if not 1 <= partitions <= _MAX_PARTITIONS:
        raise TopicRefused(ErrorCode.invalid_partitions, f"1 to {_MAX_PARTITIONS} partitions")


def _limits(settings: Mapping[str, str]) -> LogLimits:
    return LogLimits(
        segment_bytes=int(settings["segment.bytes"]),
        max_message_bytes=int(settings["max.message.bytes"]),
        retention_ms=int(settings["retention.ms"]),
        retention_bytes=int(settings["retention.bytes"]),
        deletes="compact" not in settings["cleanup.policy"],
    )
