"""The embedded broker: its life, its connections, and which handler answers what."""

import asyncio
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

from ops.broker import protocol as api
from ops.broker.cluster_api import ClusterApi
from ops.broker.data_api import DataApi
from ops.broker.group_api import GroupApi
from ops.broker.offsets import OffsetStore
from ops.broker.protocol import Fields, Malformed, Request, read_request, write_answer
from ops.broker.topics import Topics

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 1024 * 1024
_MAX_WAITING_REQUESTS = 16  # of one connection; more are left in the socket
_RETENTION_EVERY_S = 30.0

Handler = Callable[[Request, str], Awaitable[Fields | None]]


class DirectoryInUse(Exception):
    """Another broker has the data directory."""


class EmbeddedBroker:
    """A single-node broker over one data directory.

    `port` 0 takes a free one. `fsync`: data is on the disk, not only in the page cache, before it is acknowledged.
    """

    def __init__(
        self,
        data_dir: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        fsync: bool = False,
    ) -> None:
        self._data_dir = data_dir
        self._address = host, port
        self._fsync = fsync
        self._connections: set[_Connection] = set()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, `host:port`; the port is known once it is started."""
        return f"{self._address[0]}:{self._address[1]}"

    async def start(self) -> None:
        """Recover the data directory and listen. Raises DirectoryInUse, DamagedJournal, OSError."""
        self._lock_fd = _locked(self._data_dir)
        try:
            await self._open()
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._housekeeping = asyncio.get_running_loop().create_task(self._keep_house())
        logger.info("broker listens on %s, data in %s", self.bootstrap_servers, self._data_dir)

    async def _open(self) -> None:
        self._topics = Topics(self._data_dir, fsync=self._fsync)
        self._topics.open()
        self._offsets = OffsetStore(self._data_dir, fsync=self._fsync)
        self._offsets.open({topic.name for topic in self._topics})
        self._groups = GroupApi(self._topics, self._offsets)
        handlers: dict[int, Handler] = {}
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(handlers, self._connections), *self._address, start_serving=False
        )
        self._address = self._address[0], self._server.sockets[0].getsockname()[1]
        cluster = ClusterApi(self._topics, self._offsets, self._address)
        handlers |= _handlers(cluster, DataApi(self._topics), self._groups)
        await self._server.start_serving()

    async def stop(self) -> None:
        """Close the connections, flush everything to the disk, free the data directory."""
        self._server.close()
        self._housekeeping.cancel()
        for connection in list(self._connections):
            connection.close()
        self._groups.close()
        self._topics.close()
        self._offsets.close()
        os.close(self._lock_fd)
        await self._server.wait_closed()

    def enforce_retention(self) -> None:
        """Delete what the topics' settings no longer allow; also done every 30 seconds."""
        self._topics.enforce_retention(int(time.time() * 1000))
        self._offsets.compact_if_large()
        self._groups.forget_idle_groups()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_RETENTION_EVERY_S)
            try:
                self.enforce_retention()
            except OSError as error:
                logger.error("cannot clean up: %s", error)


def _locked(data_dir: Path) -> int:
    data_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise DirectoryInUse(f"another broker uses the data directory {data_dir}") from error
    return fd


def _handlers(cluster: ClusterApi, data: DataApi, groups: GroupApi) -> Mapping[int, Handler]:
    return {
        api.PRODUCE: data.produce,
        api.FETCH: data.fetch,
        api.LIST_OFFSETS: data.list_offsets,
        api.INIT_PRODUCER_ID: data.init_producer_id,
        api.JOIN_GROUP: groups.join_group,
        api.SYNC_GROUP: groups.sync_group,
        api.HEARTBEAT: groups.heartbeat,
        api.LEAVE_GROUP: groups.leave_group,
        api.OFFSET_COMMIT: groups.offset_commit,
        api.OFFSET_FETCH: groups.offset_fetch,
        api.LIST_GROUPS: groups.list_groups,
        api.DESCRIBE_GROUPS: groups.describe_groups,
        api.DELETE_GROUPS: groups.delete_groups,
        api.API_VERSIONS: cluster.api_versions,
        api.METADATA: cluster.metadata,
        api.FIND_COORDINATOR: cluster.find_coordinator,
        api.CREATE_TOPICS: cluster.create_topics,
        api.DELETE_TOPICS: cluster.delete_topics,
        api.CREATE_PARTITIONS: cluster.create_partitions,
        api.DELETE_RECORDS: cluster.delete_records,
        api.DESCRIBE_CONFIGS: cluster.describe_configs,
        api.ALTER_CONFIGS: cluster.alter_configs,
        api.INCREMENTAL_ALTER_CONFIGS: cluster.incremental_alter_configs,
    }


class _Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other, in order, as Kafka does."""

    def __init__(self, handlers: Mapping[int, Handler], connections: set["_Connection"]) -> None:
        self._handlers = handlers
        self._connections = connections
        self._buffer = bytearray()
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = str((transport.get_extra_info("peername") or ("unknown",))[0])
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._task.cancel()

    def close(self) -> None:
        """End the connection without another word."""
        self._transport.abort()
        self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big", signed=True)
            if not 8 <= size <= MAX_REQUEST_BYTES:
                self._refuse(f"a request of {size} bytes")
                return
            if len(self._buffer) < size + 4:
                return
            self._waiting.append(bytes(memoryview(self._buffer)[4 : size + 4]))
            del self._buffer[: size + 4]
            self._news.set()
        if len(self._waiting) > _MAX_WAITING_REQUESTS:
            self._transport.pause_reading()

    def _refuse(self, why: str) -> None:
        logger.warning("closed a connection: %s: %s", self._peer, why)
        self.close()

    async def _serve(self) -> None:
        try:
            while True:
                answer = await self._answer(await self._next_frame())
                if answer is not None:
                    self._transport.write(answer)
                    await self._writable.wait()
        except Malformed as error:
            self._refuse(str(error))
        except Exception:
            logger.exception("closed a connection: %s: an error of ours", self._peer)
            self.close()

    async def _next_frame(self) -> bytes:
        while not self._waiting:
            self._news.clear()
            self._transport.resume_reading()
            await self._news.wait()
        return self._waiting.popleft()

    async def _answer(self, frame: bytes) -> bytes | None:
        request = read_request(frame)
        fields = await self._handlers[request.api_key](request, self._peer)
        if fields is None:
            return None
        version = 0 if request.body is None else request.version
        return write_answer(request, version, fields)
