"""Scripts on Redis or Valkey: many callers share a round trip, and none ever gets another's answer."""

import asyncio
import hashlib
import itertools
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from contracts.errors import Misconfigured, StoreUnavailable

WAIT_S = 1.0  # for the whole of one round trip
CONNECTIONS = 4
_AT_ONCE = 256  # calls in one round trip
_AWAY_FOR_S = 1.0  # a server that did not answer is not asked again for so long

_log = logging.getLogger(__name__)

Argument = str | bytes | int | float


class Script:
    """A Lua script, known to the server by its digest. It must be safe to run twice with the same arguments."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


class _Call:
    __slots__ = ("answer", "args", "keys", "script")

    def __init__(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument], answer: Any) -> None:
        self.script = script
        self.keys = keys
        self.args = args
        self.answer: asyncio.Future[Any] = answer

    def command(self, *, whole: bool) -> bytes:
        how: tuple[Argument, Argument] = ("EVAL", self.script.source) if whole else ("EVALSHA", self.script.sha)
        return packed((*how, len(self.keys), *self.keys, *self.args))

    def answered(self, result: Any) -> None:
        if self.answer.done():  # its caller was cancelled
            return
        if isinstance(result, BaseException):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


def packed(words: Sequence[Argument]) -> bytes:
    """A command as the server reads it. The client's own packing is made for any type, and takes far longer."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        text = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


class RedisCalls:
    """Runs scripts. What is asked at the same time goes out together, on a connection that nobody else reads from.

    A cancelled caller leaves the round trip alone: its answer is read and dropped. A round trip that fails or takes
    too long costs its connection, and each begins with a word that the server must repeat.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool  # makes connections as its URL says; they are kept here
        self._free: list[AbstractConnection] = []
        self._waiting: list[_Call] = []
        self._scheduled = False
        self._under_way: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(CONNECTIONS)
        self._away_until = 0.0
        self._words = itertools.count(int.from_bytes(os.urandom(4)))

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> "AsyncIterator[RedisCalls]":
        """At a Redis or Valkey URL; it need not be up. Raises Misconfigured: the URL is malformed."""
        try:
            pool = ConnectionPool.from_url(
                url, socket_timeout=None, socket_connect_timeout=WAIT_S, retry=Retry(NoBackoff(), 0)
            )
        except ValueError:  # may quote the URL, password and all
            raise Misconfigured("the Redis URL is malformed; it should look like redis://host:6379/0") from None
        calls = cls(pool)
        try:
            yield calls
        finally:
            await calls._close()

    async def run(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> Any:
        """A script's result, strings in it as bytes. Raises StoreUnavailable: what it did is then unknown."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            raise StoreUnavailable("Redis did not answer just now")
        call = _Call(script, keys, args, loop.create_future())
        self._waiting.append(call)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._send)  # what is asked right now joins
        return await call.answer

    def _send(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _AT_ONCE):
            task = asyncio.get_running_loop().create_task(self._settle(waiting[start : start + _AT_ONCE]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _settle(self, calls: Sequence[_Call]) -> None:
        try:
            results = await self._asked(calls)
        except (RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop's, of a lost connection
            self._away_until = asyncio.get_running_loop().time() + _AWAY_FOR_S
            away = StoreUnavailable(f"Redis: {type(error).__name__}")
            away.__cause__ = error
            results = [away] * len(calls)
        except asyncio.CancelledError:
            for call in calls:
                call.answer.cancel()
            raise
        for call, result in zip(calls, results, strict=True):
            call.answered(result)

    async def _asked(self, calls: Sequence[_Call]) -> list[Any]:
        async with asyncio.timeout(2 * WAIT_S), self._turn:
            try:
                return await self._round_trip(calls)
            except (RedisError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise
                # a connection that went stale while idle: scripts may run twice
                return await self._round_trip(calls)

    async def _round_trip(self, calls: Sequence[_Call]) -> list[Any]:
        async with asyncio.timeout(WAIT_S):
            connection = self._free.pop() if self._free else self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                if not connection.is_connected:
                    await connection.connect()
                results = await self._talk(connection, [call.command(whole=False) for call in calls])
                unknown = [place for place, result in enumerate(results) if isinstance(result, NoScriptError)]
                if unknown:
                    again = await self._talk(connection, [calls[place].command(whole=True) for place in unknown])
                    for place, result in zip(unknown, again, strict=True):
                        results[place] = result
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._free.append(connection)
            return results

    async def _talk(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        word = next(self._words).to_bytes(16)
        await connection.send_packed_command([packed(("ECHO", word)) + b"".join(commands)])
        if await connection.read_response() != word:
            _log.error("Redis answered something that was not asked")
            raise RedisError("an answer that belongs to another question")
        return [await self._answer(connection) for _ in commands]

    async def _answer(self, connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response()
        except NoScriptError as error:
            return error
        except ResponseError as error:  # loading, out of memory, read-only, or a bug of the script
            _log.error("Redis refuses a command: %s", error)
            return StoreUnavailable(f"Redis refuses a command: {type(error).__name__}")

    async def _close(self) -> None:
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for connection in self._free:
            await connection.disconnect(nowait=True)
