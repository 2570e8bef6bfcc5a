"""What went on around the tickets of a replay: policies came into force, and other tickets changed orders."""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from state.past import InForce, OrderChanged, PostgresPast
from state.shadow import Shadow, point_at_policy, put_order


@dataclass(slots=True)
class Meanwhile:
    """Lets a shadow's time go by."""

    shadow: Shadow
    shop_of: Callable[[str], str]
    policies: Sequence[InForce]  # oldest first
    changes: deque[OrderChanged]  # oldest first
    _in_force: dict[str, str] = field(default_factory=dict)

    async def until(self, at: datetime) -> datetime | None:
        """Bring the shop's policies and orders to a time, not before the last one.

        Returns when something goes on next; None: nothing does any more.
        """
        while self.changes and self.changes[0].at <= at:
            change = self.changes.popleft()
            await put_order(self.shadow.pool, self.shop_of(change.tenant_id), change.order_id, change.document)
        wanted = self._policies_at(at)
        for shop_id, version in wanted.items():
            if self._in_force.get(shop_id) != version:
                await point_at_policy(self.shadow.pool, shop_id, version)
        self._in_force = wanted
        later = [one.since for one in self.policies if one.since > at]
        return min([*later, *(change.at for change in itertools.islice(self.changes, 1))], default=None)

    def _policies_at(self, at: datetime) -> dict[str, str]:
        """Each shop's version that was loaded last by then; one that had none so early has its first."""
        found: dict[str, str] = {}
        for one in self.policies:
            if one.since <= at or one.shop_id not in found:
                found[one.shop_id] = one.version
        return found


async def meanwhile(
    shadow: Shadow, shop_of: Callable[[str], str], since: datetime, besides: Collection[str]
) -> Meanwhile:
    """What went on since, but for what these tickets did."""
    past = PostgresPast(shadow.live)
    changes = deque(await past.changes(since, besides))
    return Meanwhile(shadow, shop_of, await past.policies(), changes)
