"""What a client may do, as Kafka tells each of itself; no right is needed to ask."""

from enum import IntEnum

_NOT_TOLD = -(2**31)


class Operation(IntEnum):
    """What a client may do with a topic, a group or the cluster; the numbers are Kafka's."""

    READ = 3
    WRITE = 4
    CREATE = 5
    ALTER = 7
    DESCRIBE = 8


Rights = frozenset[Operation] | None
"""What the client may do; None: the cluster does not tell."""


def rights_in(told: int) -> Rights:
    """The rights that Kafka's bits stand for."""
    return None if told == _NOT_TOLD else frozenset(one for one in Operation if told >> one & 1)
