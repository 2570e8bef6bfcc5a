"""The handler of a worker: what surrounds deciding, in one list."""

from collections.abc import Callable

from bus import tracing
from bus.deciding import Decide, Deciding, timing_out
from bus.delivery import Delivery
from bus.handler import Handler
from bus.middleware import compose, decoded, deduplicated, judged, retried, within_deadline
from bus.options import WorkerOptions
from contracts.ports import Agent, TicketStore
from contracts.ticket import Signature


def pipeline(
    agent: Agent, tickets: TicketStore, options: WorkerOptions, handled_in_lane: Callable[[Delivery], bool]
) -> Handler:
    """The agent's handler, from a delivery to its outcome, outermost first."""
    by = Signature(agent.name, agent.version)

    def patient(decide: Decide) -> Handler:
        deciding = Deciding(decide, by, tickets, options.tenants)
        return compose(deciding, retried(options.retry_delays_s, longest_in_place_s=options.longest_wait_in_place_s))

    return compose(
        patient(agent.handle),
        *([tracing.traced(agent.name)] if tracing.is_set_up() else []),  # its span sees the outcome
        judged,
        decoded,
        deduplicated(handled_in_lane),
        within_deadline(expired=patient(timing_out(by))),  # bounds all tries together
    )
