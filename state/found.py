"""What an effect found before it changed anything: kept among the recordings, so that a replay can put it back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contracts.events import Command

KEEP_FOUND = """
INSERT INTO recordings (request_digest, ticket_id, tenant_id, agent, step, request, reply)
VALUES ($1, $2, $3, 'effects', 'before', $4, $5)
ON CONFLICT (request_digest) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Found:
    """The rows' documents; None where an effect was about no order, or its customer had no row."""

    order: str | None
    customer: str | None

    def row(self, command: Command) -> tuple[Any, ...]:
        """The arguments of KEEP_FOUND."""
        request = json.dumps({"effect_key": command.effect_key})
        reply = json.dumps({"order": self.order, "customer": self.customer}).encode()
        return f"effect/{command.effect_key}", command.ticket_id, command.tenant_id, request, reply

    @classmethod
    def from_reply(cls, reply: bytes) -> "Found":
        """Undo `row`."""
        return cls(**json.loads(reply))

    def rows(self, order_id: str | None, user_id: str) -> Iterator[tuple[str, str, str, str]]:
        """(table, key column, key, document) of each row that was found."""
        if self.order is not None and order_id is not None:
            yield "shop_orders", "order_id", order_id, self.order
        if self.customer is not None:
            yield "shop_customers", "user_id", user_id, self.customer
