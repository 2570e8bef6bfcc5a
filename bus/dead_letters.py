"""Dead letters: the record as it was, and why it could not be handled."""

import asyncio
import logging
from dataclasses import dataclass

from bus.backoff import outage_wait_s
from bus.delivery import Delivery
from bus.outcome import DeadLetter
from bus.publisher import Publisher
from contracts.errors import Permanent, SupportError, Transient
from contracts.topics import dead_letter_topic

_log = logging.getLogger(__name__)
_LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Writes a group's dead letters to `<topic>.<group>.dlt`."""

    group: str
    publisher: Publisher

    async def write(self, delivery: Delivery, letter: DeadLetter) -> None:
        """Write key, value and headers byte for byte, with our headers after them.

        Waits as long as the topic cannot be written: the offset is held, the record is never dropped.
        """
        topic = dead_letter_topic(delivery.record.topic, self.group)
        headers = (*delivery.record.headers, *_headers(self.group, delivery, letter))
        failures = 0
        while True:
            try:
                await self.publisher.put(topic, key=delivery.record.key, value=delivery.record.value, headers=headers)
            except (Transient, Permanent) as error:
                failures += 1
                _log.error("the dead letter of %s cannot be written: %s", delivery.position, error)
                await asyncio.sleep(outage_wait_s(failures))
            else:
                return


def _headers(group: str, delivery: Delivery, letter: DeadLetter) -> tuple[tuple[str, bytes], ...]:
    """Spring Kafka's names; unlike there every value is UTF-8 text, numbers too, so that any tool can show it."""
    record, error = delivery.record, letter.error
    values = {
        "kafka_dlt-original-topic": record.topic,
        "kafka_dlt-original-partition": str(record.partition),
        "kafka_dlt-original-offset": str(record.offset),
        "kafka_dlt-original-timestamp": str(record.timestamp),
        "kafka_dlt-original-timestamp-type": "LogAppendTime" if record.timestamp_type else "CreateTime",
        "kafka_dlt-original-consumer-group": group,
        "kafka_dlt-exception-fqcn": _class_of(error),
        "kafka_dlt-exception-message": _message_of(error),
        "kafka_dlt-exception-cause-fqcn": _class_of(error.__cause__) if error.__cause__ else None,
        "kafka_dlt-attempts": str(delivery.attempts),
        "kafka_dlt-trace-id": letter.trace_id,
    }
    return tuple((name, text.encode()) for name, text in values.items() if text is not None)


def _class_of(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _message_of(error: Exception) -> str:
    """Our own errors speak without a customer's words; a bug's text may quote them."""
    if isinstance(error, SupportError):
        return str(error)[:_LONGEST_MESSAGE]
    return "a bug; its traceback is in the worker's log"
