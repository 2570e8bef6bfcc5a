"""JSON Schemas as the providers' strict modes want them: closed objects, every field required, few keywords."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from contracts.errors import ContractBroken

_KEPT = ("type", "title", "description", "enum")


def title_of(answer: type[BaseModel]) -> str:
    """The title an answer's schema bears."""
    return str(answer.model_config.get("title") or answer.__name__)


@functools.lru_cache(maxsize=256)
def strict_schema(answer: type[BaseModel]) -> dict[str, Any]:
    """The answer's schema, self-contained. Callers share it and must not change it.

    What a strict mode does not know (bounds, patterns, formats, defaults) is told in the description, and
    checked when the answer comes. Raises ContractBroken: the answer holds an object with free keys, or itself.
    """
    schema = answer.model_json_schema()
    return _Strict(answer.__name__, schema.get("$defs", {})).schema(schema, inside=())


@functools.lru_cache(maxsize=256)
def schema_chars(answer: type[BaseModel]) -> int:
    """How long the strict schema is, as JSON."""
    return len(json.dumps(strict_schema(answer)))


class _Strict:
    def __init__(self, name: str, definitions: Mapping[str, Any]) -> None:
        self._name = name
        self._definitions = definitions

    def schema(self, schema: Mapping[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
        schema, inside = self._resolved(schema, inside)
        strict = {key: schema[key] for key in _KEPT if key in schema}
        if "const" in schema:
            strict["enum"] = [schema["const"]]
        variants = schema.get("anyOf") or schema.get("oneOf")
        if variants:
            strict["anyOf"] = [self.schema(variant, inside) for variant in variants]
        if schema.get("type") == "array":
            strict["items"] = self.schema(schema.get("items", {}), inside)
        if schema.get("type") == "object":
            strict |= self._closed_object(schema, inside)
        if not strict.keys() & {"type", "enum", "anyOf"}:
            raise ContractBroken(f"the answer schema {self._name} says of a value only that it is one")
        return _with_hint(strict, schema)

    def _closed_object(self, schema: Mapping[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") or not properties:
            raise ContractBroken(f"the answer schema {self._name} holds an object with free keys")
        return {
            "properties": {name: self.schema(inner, inside) for name, inner in properties.items()},
            "required": list(properties),
            "additionalProperties": False,
        }

    def _resolved(
        self, schema: Mapping[str, Any], inside: tuple[str, ...]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Put a definition where it is referred to: strict modes allow nothing beside a reference."""
        while "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            if name in inside:
                raise ContractBroken(f"the answer schema {self._name} holds itself")
            inside = (*inside, name)
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**self._definitions[name], **beside}
        return schema, inside


_HINTS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "multipleOf",
)


def _with_hint(strict: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    hints = ", ".join(f"{key}: {schema[key]}" for key in _HINTS if key in schema)
    if hints:
        strict["description"] = f"{strict.get('description', '')} ({hints})".strip()
    return strict
