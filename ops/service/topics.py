"""The cluster's topics against the catalogue."""

from collections.abc import Sequence

from bus.admin import TopicChange, apply_topics, check_topics
from contracts.topics import all_topics
from ops.settings import Settings
from ops.wiring import INBOXES, kafka_connection


async def apply(settings: Settings, *, dry_run: bool = False) -> Sequence[TopicChange]:
    """Make the cluster's topics what the catalogue says, or tell what that would change."""
    act = check_topics if dry_run else apply_topics
    return await act(kafka_connection(settings.kafka), all_topics(INBOXES))


async def drifted(settings: Settings) -> Sequence[TopicChange]:
    """The topics that are not as the catalogue says, with what would be changed."""
    return [change for change in await apply(settings, dry_run=True) if change.change != "unchanged"]
