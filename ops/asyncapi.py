"""The AsyncAPI 3.0 document of all topics, drawn from the catalogue."""

from collections.abc import Mapping
from typing import Any

from contracts.events import ControlCommand, Payload
from contracts.topics import CATALOGUE, Topic, dead_letters_of

Document = dict[str, Any]
PayloadType = type[Payload] | type[ControlCommand]

DEAD_LETTER = "DeadLetter"
_TEXT: Document = {"type": "string"}
_MOMENT: Document = {"type": "string", "format": "date-time"}
_COMMON_HEADERS: Document = {
    "ce_specversion": {"const": "1.0"},
    "ce_id": _TEXT | {"description": "Names the event; a second record of the same id is a duplicate."},
    "ce_source": _TEXT | {"description": "Who wrote it."},
    "ce_time": _MOMENT,
    "ce_causationid": _TEXT | {"description": "The id of the event that led here."},
    "content-type": {"const": "application/json"},
    "traceparent": _TEXT | {"description": "W3C trace context."},
    "deadline": _MOMENT | {"description": "When the customer must have an outcome at the latest."},
}
_DEAD_LETTER_HEADERS: Document = {
    "kafka_dlt-original-topic": _TEXT,
    "kafka_dlt-original-partition": _TEXT | {"description": "A decimal number, as all numbers here."},
    "kafka_dlt-original-offset": _TEXT,
    "kafka_dlt-original-timestamp": _TEXT | {"description": "Milliseconds since 1970."},
    "kafka_dlt-original-timestamp-type": {"enum": ["CreateTime", "LogAppendTime"]},
    "kafka_dlt-original-consumer-group": _TEXT,
    "kafka_dlt-exception-fqcn": _TEXT | {"description": "The class of the error."},
    "kafka_dlt-exception-message": _TEXT,
    "kafka_dlt-attempts": _TEXT,
}
_OPTIONAL_DEAD_LETTER_HEADERS: Document = {
    "kafka_dlt-exception-cause-fqcn": _TEXT | {"description": "The class of the error behind it."},
    "kafka_dlt-trace-id": _TEXT,
}


def asyncapi_document(schema_file: Mapping[PayloadType, str]) -> Document:
    """The whole document; payload schemas are referred to by the names of their files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Switchyard",
            "version": "1.0.0",
            "description": "Support tickets in, one outcome for each round of a ticket out. Values are JSON, in the "
            "binary mode of CloudEvents 1.0. Readers ignore fields and headers they do not know.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "cluster": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "variables": {"bootstrap": {"default": "localhost:9092"}},
            }
        },
        "channels": {_name(topic): _channel(topic) for topic in CATALOGUE} | _dead_letter_channels(),
        "operations": _operations(),
        "components": {
            "messages": {
                payload.type_name(): _message(payload, topic, schema_file[payload])
                for topic in CATALOGUE
                for payload in topic.payloads
            }
            | {DEAD_LETTER: _dead_letter()}
        },
    }


def _name(topic: Topic) -> str:
    return topic.name.removeprefix("support.").removesuffix(".v1")


def _dead_letter_name(topic: Topic, group: str) -> str:
    return f"{_name(topic)}-{group}-dead-letters"


def _channel(topic: Topic) -> Document:
    names = [payload.type_name() for payload in topic.payloads] or [DEAD_LETTER]
    return {
        "address": topic.name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": ["compact" if topic.compacted else "delete"],
                    "retention.ms": topic.retention_ms,
                    "max.message.bytes": topic.max_message_bytes,
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def _dead_letter_channels() -> Document:
    return {
        _dead_letter_name(topic, group): _channel(dead_letters_of(topic, group))
        for topic in CATALOGUE
        for group in topic.read_by
    }


def _operations() -> Document:
    operations: Document = {}
    for topic in CATALOGUE:
        channel = {"$ref": f"#/channels/{_name(topic)}"}
        if not topic.bare_json:  # those are written by the customers of this system
            operations[f"send-{_name(topic)}"] = {"action": "send", "channel": channel}
        for group in topic.read_by:
            operations[f"{group}-receives"] = {
                "action": "receive",
                "channel": channel,
                "bindings": {"kafka": {"groupId": {"const": group}, "bindingVersion": "0.5.0"}},
            }
            dead_letters = {"$ref": f"#/channels/{_dead_letter_name(topic, group)}"}
            operations[f"{group}-sends-dead-letters"] = {"action": "send", "channel": dead_letters}
    return operations


def _message(payload: PayloadType, topic: Topic, schema_file: str) -> Document:
    headers = {
        "ce_type": {"const": payload.type_name()},
        "ce_dataschema": {"const": schema_id(payload)},
    } | _COMMON_HEADERS
    always = [] if topic.bare_json and payload is topic.payloads[0] else ["ce_type", "ce_id"]
    return {
        "name": payload.type_name(),
        "summary": (payload.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "headers": {"type": "object", "properties": headers} | ({"required": always} if always else {}),
        "payload": {"$ref": f"./{schema_file}"},
        "bindings": {"kafka": {"key": _key(payload), "bindingVersion": "0.5.0"}},
    }


def _key(payload: PayloadType) -> Document:
    told = "The ticket_id." if issubclass(payload, Payload) else "The group that is addressed."
    return _TEXT | {"description": told}


def _dead_letter() -> Document:
    return {
        "name": DEAD_LETTER,
        "summary": "A record that one group could not handle: its own key, value and headers, and what went wrong.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": _DEAD_LETTER_HEADERS | _OPTIONAL_DEAD_LETTER_HEADERS,
            "required": list(_DEAD_LETTER_HEADERS),
        },
        "payload": {"description": "The original bytes, whatever they are."},
        "bindings": {"kafka": {"key": _TEXT | {"description": "The original key."}, "bindingVersion": "0.5.0"}},
    }


def schema_id(payload: PayloadType) -> str:
    """What the header `ce_dataschema` says of this payload."""
    return f"urn:switchyard:{payload.type_name()}:{payload.schema_version}"
