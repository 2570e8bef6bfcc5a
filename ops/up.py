"""`switchyard up`: the embedded stack with its topics, tables, a shop and one worker of every agent."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from bus.admin import apply_topics
from contracts.topics import all_topics
from ops.embedded.ports import Ports
from ops.embedded.stack import Addresses, EmbeddedStack
from ops.settings import PREFIX, Settings, read_settings
from ops.staffing import staffed
from ops.wiring import INBOXES, database, kafka_connection
from state.shop import has_orders
from state.shop_files import ShopExport, load_shop


async def serve(
    data_dir: Path,
    ports: Ports,
    first_shop: Callable[[], ShopExport],
    stopping: asyncio.Event,
    ready: Callable[[dict[str, str]], None],
) -> None:
    """Keep the stack up until `stopping` is set, then drain it. Calls `ready` with the addresses once it works."""
    with_standin = not has_provider_key(read_settings())
    async with EmbeddedStack(data_dir, with_standin=with_standin, ports=ports) as stack:
        settings = await prepare(stack, first_shop)
        async with staffed(stack, settings) as keeping:
            ready(printed(stack.addresses))
            await stack.run_until(stopping, keeping)


def has_provider_key(settings: Settings) -> bool:
    """Whether a real provider answers, rather than the stand-in."""
    return bool(settings.llm.anthropic_api_key or settings.llm.openai_api_key)


def printed(addresses: Addresses) -> dict[str, str]:
    """The addresses as `up` prints them."""
    return {"kafka": addresses.kafka, "postgres": addresses.postgres, "redis": addresses.redis}


def worker_environment(addresses: Addresses) -> Mapping[str, str]:
    """What makes a worker of ours use these services."""
    found = {
        "KAFKA__BOOTSTRAP_SERVERS": addresses.kafka,
        "KAFKA__SECURITY_PROTOCOL": "PLAINTEXT",
        "POSTGRES__DSN": addresses.postgres,
        "REDIS__URL": addresses.redis,
    }
    if addresses.standin:
        found["LLM__STANDIN_URL"] = addresses.standin
    return {PREFIX + name: value for name, value in found.items()}


async def prepare(stack: EmbeddedStack, first_shop: Callable[[], ShopExport]) -> Settings:
    """Bring topics and tables up to date and load a shop where there is none; then workers may start."""
    os.environ.update(worker_environment(stack.addresses))
    settings = read_settings()
    topics = all_topics(INBOXES)
    await asyncio.gather(apply_topics(kafka_connection(settings.kafka), topics), _give_a_shop(settings, first_shop))
    return settings


async def _give_a_shop(settings: Settings, first_shop: Callable[[], ShopExport]) -> None:
    """A shop that somebody loaded stays."""
    async with database(settings) as pool:
        shop_id = settings.shop_of(settings.tenants[0] if settings.tenants else "")
        if not await has_orders(pool, shop_id):
            await load_shop(pool, shop_id, first_shop())
