"""What proxies know of the protocols they carry: whose answer this is, and how to falsify or lose it."""

import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka.protocol.api import Response
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest

PRODUCE, METADATA, OFFSET_COMMIT, OFFSET_FETCH = 0, 3, 8, 9
FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, SYNC_GROUP = 10, 11, 12, 14
_KNOWN = (
    ProduceRequest,
    MetadataRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    FindCoordinatorRequest,
    JoinGroupRequest,
    HeartbeatRequest,
    SyncGroupRequest,
)
_SIZE, _CORRELATION = 4, 4  # bytes


class Asked(NamedTuple):
    """A Kafka request as its header tells it."""

    api_key: int
    version: int


@dataclass
class KafkaMischief:
    """What a Kafka proxy does to answers now, shared by its connections.

    An answer to one of `api_keys` is lost with its connection (`error` is None) or names the error instead,
    each with `chance`, after the first `spared`, until `left` were.
    """

    api_keys: frozenset[int] = frozenset()
    error: int | None = None
    chance: float = 1.0  # 0..1
    spared: int = 0
    left: int = 0
    done: int = 0

    def clear(self) -> None:
        """Do nothing from now on."""
        self.left = 0

    def strikes(self, asked: Asked) -> bool:
        """Whether this answer is one to meddle with."""
        if self.left <= 0 or asked.api_key not in self.api_keys or random.random() > self.chance:
            return False
        if self.spared > 0:
            self.spared -= 1
            return False
        self.left -= 1
        self.done += 1
        return True


@dataclass
class KafkaTap:
    """One Kafka connection: follows requests and answers frame by frame."""

    mischief: KafkaMischief
    _from_client: bytearray = field(default_factory=bytearray)
    _from_server: bytearray = field(default_factory=bytearray)
    _asked: dict[int, Asked] = field(default_factory=dict)  # by correlation id

    def asked(self, data: bytes) -> None:
        """Note which requests go out."""
        self._from_client += data
        for frame in _frames(self._from_client):
            correlation = int.from_bytes(frame[4:8], "big")
            self._asked[correlation] = Asked(int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:4], "big"))

    def answered(self, data: bytes) -> bytes | None:
        """Whole answers only, some of them falsified; None: one of them is lost."""
        self._from_server += data
        through = bytearray()
        for frame in _frames(self._from_server):
            asked = self._asked.pop(int.from_bytes(frame[:_CORRELATION], "big"), Asked(-1, 0))
            if self.mischief.strikes(asked):
                if self.mischief.error is None:
                    return None
                frame = frame[:_CORRELATION] + with_error(asked, frame[_CORRELATION:], self.mischief.error)
            through += len(frame).to_bytes(_SIZE, "big") + frame
        return bytes(through)


@dataclass
class PostgresMischief:
    """Loses the answer that follows a client's bytes which hold `marker`, with its connection, `left` times."""

    marker: bytes = b""
    left: int = 0
    done: int = 0

    def clear(self) -> None:
        """Do nothing from now on."""
        self.left = 0


@dataclass
class PostgresTap:
    """One PostgreSQL connection."""

    mischief: PostgresMischief
    _marked: bool = False

    def asked(self, data: bytes) -> None:
        """Look for the marker."""
        if self.mischief.left > 0 and self.mischief.marker in data:
            self._marked = True

    def answered(self, data: bytes) -> bytes | None:
        """The same bytes, or None: the answer to what was marked is lost."""
        if self._marked and self.mischief.left > 0:
            self.mischief.left -= 1
            self.mischief.done += 1
            return None
        self._marked = False
        return data


def with_error(asked: Asked, body: bytes, error: int) -> bytes:
    """An answer's body that names the error wherever it has room for one; metadata without a broker has none."""
    response = _response_type(asked).decode(body)
    if asked.api_key == METADATA:
        response.brokers = []
    elif hasattr(response, "error_code"):
        response.error_code = error
        if asked.api_key == OFFSET_FETCH:  # as Kafka does, which then tells no offsets
            response.topics = []
    else:
        response.topics = [(name, [(p, error, *rest) for p, _, *rest in parts]) for name, parts in _topics(response)]
    return response.encode()


def _topics(response: Any) -> list[tuple[str, list[tuple[Any, ...]]]]:
    return list(response.topics)


def _response_type(asked: Asked) -> type[Response]:
    [found] = [
        struct.RESPONSE_TYPE
        for request in _KNOWN
        if asked.api_key == request.API_KEY
        for struct in request._CLASSES
        if asked.version == struct.API_VERSION
    ]
    return found


def _frames(buffer: bytearray) -> "list[bytes]":
    """Take the whole frames off the front of a buffer."""
    found = []
    while len(buffer) >= _SIZE:
        size = int.from_bytes(buffer[:_SIZE], "big")
        if len(buffer) < _SIZE + size:
            break
        found.append(bytes(buffer[_SIZE : _SIZE + size]))
        del buffer[: _SIZE + size]
    return found
