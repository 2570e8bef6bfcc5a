"""Values as the JSON documents that the store keeps."""

import re
from typing import TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from contracts.errors import ContractBroken

ModelT = TypeVar("ModelT", bound=BaseModel)

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def to_json(value: BaseModel, *, exclude: set[str] | None = None) -> str:
    """The value as JSON text. Raises ContractBroken: it holds NUL or half a character, which no column takes."""
    try:
        text = value.model_dump_json(exclude=exclude)
    except PydanticSerializationError as error:
        raise ContractBroken(f"{type(value).__name__} holds text that is not Unicode") from error
    if "\\u0000" in text and _NUL.search(text):  # the search alone takes longer than writing the document
        raise ContractBroken(f"{type(value).__name__} holds a NUL character")
    return text


def from_json(model: type[ModelT], text: str | bytes) -> ModelT:
    """Undo `to_json`, ignoring fields that a newer version wrote."""
    return model.model_validate_json(text, extra="ignore")
