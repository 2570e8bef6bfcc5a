"""The handler of a worker: what surrounds deciding, in one list."""

from bus.deciding import Decide, Deciding, timing_out
from bus.handler import Handler
from bus.middleware import compose, decoded, deduplicated, judged, retried, within_deadline
from bus.options import WorkerOptions
from bus.publisher import Publish
from bus.tracing import traced
from contracts.ports import Agent, TicketStore
from contracts.ticket import Signature


def pipeline(agent: Agent, store: TicketStore, publish: Publish, options: WorkerOptions) -> Handler:
    """The agent's handler, from a delivery to its outcome, outermost first."""
    by = Signature(agent.name, agent.version)

    def settled(decide: Decide) -> Handler:
        deciding = Deciding(decide, by, store, publish, options.tenants)
        return compose(deciding, retried(options.retry_delays_s), deduplicated(agent.name, store))

    return compose(
        settled(agent.handle),
        traced(agent.name),  # its span sees the outcome
        judged,
        decoded,
        within_deadline(expired=settled(timing_out(by))),  # bounds all tries together
    )
