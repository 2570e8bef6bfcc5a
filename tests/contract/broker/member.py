"""A group member as a process of its own, to be killed: `python member.py BOOTSTRAP TOPIC GROUP`."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer


async def main(bootstrap: str, topic: str, group: str) -> None:
    """Read for ever."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, session_timeout_ms=6000, heartbeat_interval_ms=200
    )
    await consumer.start()
    while True:
        await consumer.getmany(timeout_ms=100)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
