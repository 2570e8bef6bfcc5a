"""Autoscaling at work: measures each agent, decides, and keeps what changed with what it was decided from."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.control import Scale
from contracts.errors import Outage
from contracts.ports import Scales
from ops.autoscale import Decision, Goal, Lag, Memory, Room, decide

BY = "autoscale"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Autoscaler:
    """Decides for each agent that has a goal. A supervisor, or an orchestrator, does what it decides."""

    goals: Mapping[str, Goal]
    scales: Scales
    measure: Callable[[str], Awaitable[Lag]]
    room: Callable[[str], Awaitable[Room]]
    at_first: int = 1  # workers of an agent that nobody decided about
    clock: Callable[[], float] = time.monotonic
    _memories: dict[str, Memory] = field(default_factory=dict)
    _last: dict[str, Decision] = field(default_factory=dict)

    async def run(self, every_s: float = 5.0) -> None:
        """Decide again and again, until cancelled. What cannot be measured stays as it is."""
        while True:
            for agent in self.goals:
                try:
                    await self.look_at(agent)
                except Outage as error:
                    _log.warning("%s is not scaled for now: %s", agent, error)
            await asyncio.sleep(every_s)

    async def look_at(self, agent: str) -> Decision:
        """Decide about one agent; a number that changed is kept. Raises Outage: nothing was decided."""
        lag, room = await self.measure(agent), await self.room(agent)
        workers = (await self.scales.wanted()).get(agent, self.at_first)
        memory = self._memories.get(agent, Memory())
        decision, self._memories[agent] = decide(self.clock(), workers, lag, room, self.goals[agent], memory)
        if decision.workers != workers:
            await self.scales.decide(Scale(agent, decision.workers, BY, decision.reason, decision.inputs))
        if agent not in self._last or self._last[agent].reason != decision.reason:
            _log.info("%s: %s", agent, decision.reason, extra={"inputs": decision.inputs})
        self._last[agent] = decision
        return decision

    def advice(self, agent: str) -> dict[str, Any]:
        """What was decided last as one JSON object: for KEDA's metrics-api scaler, `valueLocation: workers`.

        Raises KeyError: nothing was decided yet.
        """
        decision = self._last[agent]
        return {"agent": agent, "workers": decision.workers, "reason": decision.reason, "inputs": decision.inputs}
