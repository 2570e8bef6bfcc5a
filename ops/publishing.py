"""Publishing tickets from a file, as any producer would: plain JSON, key = ticket id, no headers."""

from pathlib import Path

from pydantic import ValidationError

from bus.publisher import Publisher
from contracts.errors import Misconfigured
from contracts.events import TicketSubmitted
from ops.settings import Settings
from ops.wiring import kafka_connection


def read_tickets(file: Path) -> list[tuple[str, bytes]]:
    """(ticket id, JSON) of each non-empty line. Raises Misconfigured naming the line and field that is wrong."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from error
    return [_ticket(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _ticket(file: Path, number: int, line: bytes) -> tuple[str, bytes]:
    try:
        return TicketSubmitted.model_validate_json(line, extra="ignore").ticket_id, line
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise Misconfigured(f"{file}, line {number}: {field}: {first['msg']}; nothing was published") from error


async def publish_file(file: Path, settings: Settings) -> int:
    """Publish every ticket of a file in its order; returns how many."""
    tickets = read_tickets(file)
    async with Publisher(kafka_connection(settings.kafka)) as publisher:
        await publisher.publish_bare(tickets)
    return len(tickets)
