"""The supervisor: a process that keeps as many workers of each agent as are wanted. They go on without it."""

import asyncio
import fcntl
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts.errors import Misconfigured, Outage
from ops.posts import Command, Patience, Post

CLOSING_S = 20.0  # for a worker to leave Kafka and the databases once its drain is over

_LOOK_EVERY_S = 0.5
_DRAINED_EVERY_S = 0.05
_LOCK = re.compile(r"(?P<agent>[a-z_]+)-(?P<number>\d+)\.lock")

_log = logging.getLogger(__name__)


def run_worker(agent: str, number: int, lock: int) -> Sequence[str]:
    """The command of a worker at a post."""
    # -P: a folder here that is called like a package of ours is not meant
    return [sys.executable, "-P", "-m", "ops.supervised", agent, str(number), str(lock)]


class Supervisor:
    """Keeps workers at the posts of a folder. Run it once, inside `supervising` the same folder."""

    def __init__(
        self,
        folder: Path,
        wanted: Callable[[], Awaitable[Mapping[str, int]]],
        patience: Patience,
        *,
        command: Command = run_worker,
        environment: Mapping[str, str] | None = None,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        """`wanted`: how many workers each agent is to have. Of an agent that it does not name none is touched.

        `environment`: the workers'; None: this process's.
        """
        self._folder = folder
        self._wanted = wanted
        self._patience = patience
        self._command = command
        self._environment = environment
        self._look_every_s = look_every_s
        self._posts: dict[tuple[str, int], Post] = {}
        self.last_wanted: Mapping[str, int] = {}  # as far as known
        self._is_away = False

    async def run(self, stopping: asyncio.Event, looked: Callable[[], None]) -> None:
        """Keep the workers up until `stopping`, then drain them. Calls `looked` once all were started."""
        self._adopt()
        await self._look()
        looked()
        while not await self._is_set_soon(stopping):
            await self._look()
        await self._drain()

    def pids(self) -> list[int]:
        """The processes that are at work."""
        return [post.pid for post in self._posts.values() if post.is_taken() and post.pid is not None]

    def failed(self) -> list[Post]:
        """The posts of which a worker ended by itself."""
        return [post for post in self._posts.values() if post.has_failed]

    def _adopt(self) -> None:
        """Find the posts of a supervisor before this one."""
        for path in sorted(self._folder.iterdir()):
            if found := _LOCK.fullmatch(path.name):
                post = self._post(found["agent"], int(found["number"]))
                if post.is_taken():
                    _log.info("adopted worker %d of %s, process %s", post.number, post.agent, post.pid)

    async def _look(self) -> None:
        try:
            self.last_wanted = await self._wanted()
            self._is_away = False
        except Outage as error:
            if not self._is_away:
                _log.warning("keeping the workers there are: %s", error)
            self._is_away = True
        for agent, count in self.last_wanted.items():
            for number in range(1, count + 1):
                self._post(agent, number).keep()
        for post in self._posts.values():
            if post.number > self.last_wanted.get(post.agent, post.number):
                post.let_go()

    async def _drain(self) -> None:
        working = list(self._posts.values())
        while True:
            working = [post for post in working if not post.let_go()]
            if not working:
                return
            await asyncio.sleep(_DRAINED_EVERY_S)

    def _post(self, agent: str, number: int) -> Post:
        place = (agent, number)
        if place not in self._posts:
            self._posts[place] = Post(
                self._folder, agent, number, self._command, self._patience, environment=self._environment
            )
        return self._posts[place]

    async def _is_set_soon(self, stopping: asyncio.Event) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), self._look_every_s)
        return stopping.is_set()


@contextmanager
def supervising(folder: Path) -> Iterator[None]:
    """Be the one supervisor of a folder. Raises Misconfigured: another one is, or the folder cannot be used."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # logs may quote a customer
        descriptor = os.open(folder / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Misconfigured(f"the folder {folder} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 20, 0).decode().strip() or "just starting"
            raise Misconfigured(
                f"a supervisor is at work in {folder} (process {owner}): stop it, or choose another folder"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
