"""What a change of a JSON Schema breaks, for those who read and write the same version of an event.

A version's readers are rolled out before its writers, so a new schema must accept all that the old one accepted;
and it must still promise what readers of the old one rely on. New optional fields and wider values are welcome.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

_ABSENT = object()
_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("pattern", "format", "multipleOf", "uniqueItems")
_NOT_JUDGED = (
    "allOf",
    "contains",
    "dependentRequired",
    "else",
    "if",
    "not",
    "patternProperties",
    "prefixItems",
    "then",
)


def breaks(old: Schema, new: Schema) -> list[str]:
    """One clause for each way in which the new schema breaks a reader or a writer of the old one.

    Widening a closed set is not among them: its readers know the new value before it is written.
    """
    return list(_Comparison(old, new).compare(old, new, "the event"))


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Two documents; references are looked up in their own `$defs`."""

    old_document: Schema
    new_document: Schema
    _compared: set[tuple[int, int]] = field(default_factory=set)  # recursive types end here

    def compare(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        old_forms = _alternatives(old, self.old_document)
        new_forms = _alternatives(new, self.new_document)
        if len(old_forms) == len(new_forms) == 1:
            yield from self._compare_form(old_forms[0], new_forms[0], where)
        else:
            yield from self._compare_alternatives(old_forms, new_forms, where)

    def _compare_alternatives(self, old: list[Schema], new: list[Schema], where: str) -> Iterator[str]:
        for form in old:
            namesakes = [other for other in new if form.get("title") and _told(other) == _told(form)]
            if len(namesakes) == 1:
                yield from self._compare_form(form, namesakes[0], where)
            elif not any(self._is_accepted(form, other) for other in new):
                yield f"{where} may no longer be {_told(form)}"

    def _is_accepted(self, old: Schema, new: Schema) -> bool:
        trial = _Comparison(self.old_document, self.new_document, set(self._compared))
        return not any(True for _ in trial._compare_form(old, new, ""))

    def _compare_form(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        if (id(old), id(new)) in self._compared:
            return
        self._compared.add((id(old), id(new)))
        yield from _narrowed_types(old, new, where)
        yield from _narrowed_values(old, new, where)
        yield from _tightened_bounds(old, new, where)
        yield from self._compare_fields(old, new, where)
        yield from self._compare_contents(old, new, where)
        for keyword in _NOT_JUDGED:
            if old.get(keyword, _ABSENT) != new.get(keyword, _ABSENT):
                yield f"{where} has another `{keyword}`, which this check cannot judge"

    def _compare_fields(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        had, has = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name in had:
            if name not in has:
                yield f"{_inside(where, name)} is gone or renamed"
            else:
                yield from self.compare(had[name], has[name], _inside(where, name))
                yield from _changed_default(had[name], has[name], _inside(where, name))
        for name in sorted(needs - needed):
            yield f"{_inside(where, name)} is newly required"
        for name in sorted(needed - needs):
            if name in has:
                yield f"{_inside(where, name)} is no longer always there"

    def _compare_contents(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        for keyword, told in (("items", "each of"), ("additionalProperties", "each value of")):
            was, is_ = old.get(keyword, True), new.get(keyword, True)
            if isinstance(is_, Mapping) and is_:
                yield from self.compare(was if isinstance(was, Mapping) else {}, is_, f"{told} {where}")
            elif is_ is False and was is not False:
                yield f"{where} may no longer hold more than what is named"


def _alternatives(schema: Schema, document: Schema) -> list[Schema]:
    """The forms a value may take, references resolved and unions laid flat."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        return _alternatives(document["$defs"][name], document)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return [form for part in schema[keyword] for form in _alternatives(part, document)]
    return [schema]


def _types(schema: Schema) -> set[str] | None:
    """The JSON types a form accepts; None where it does not say."""
    told = schema.get("type")
    if told is None:
        return None
    types = {told} if isinstance(told, str) else set(told)
    return types | {"integer"} if "number" in types else types


def _narrowed_types(old: Schema, new: Schema, where: str) -> Iterator[str]:
    were, are = _types(old), _types(new)
    if are is None or (were is not None and were <= are):
        return
    lost = sorted(were - are) if were is not None else ["of any type"]
    yield f"{where} may no longer be {' or '.join(lost)}"


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _narrowed_values(old: Schema, new: Schema, where: str) -> Iterator[str]:
    were, are = _values(old), _values(new)
    if are is None:
        return
    if were is None:
        yield f"{where} may now be only {_listed(are)}"
    elif lost := [value for value in were if value not in are]:
        yield f"{where} may no longer be {_listed(lost)}"


def _tightened_bounds(old: Schema, new: Schema, where: str) -> Iterator[str]:
    for keyword in _LOWER_BOUNDS:
        if keyword in new and (keyword not in old or new[keyword] > old[keyword]):
            yield f"{where} has a tighter {keyword}"
    for keyword in _UPPER_BOUNDS:
        if keyword in new and (keyword not in old or new[keyword] < old[keyword]):
            yield f"{where} has a tighter {keyword}"
    for keyword in _EXACT:
        if keyword in new and new[keyword] != old.get(keyword, _ABSENT):
            yield f"{where} has another {keyword}"


def _changed_default(old: Schema, new: Schema, where: str) -> Iterator[str]:
    if old.get("default", _ABSENT) != new.get("default", _ABSENT) and "default" in old:
        yield f"{where} means something else when it is absent"


def _inside(where: str, name: str) -> str:
    return f"`{name}`" if where == "the event" else f"`{name}` of {where}"


def _told(form: Schema) -> str:
    values = _values(form)
    return _listed(values) if values is not None else str(form.get("title") or form.get("type") or "of any type")


def _listed(values: Iterable[Any]) -> str:
    return " or ".join(repr(value) for value in values)
