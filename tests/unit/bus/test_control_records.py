import pytest

from bus.control_records import command_in, control_record
from contracts.errors import Undecodable
from contracts.events import ControlAnswered, ControlCommand, Drain, Pause, Resume, SetConcurrency
from contracts.ports import Record
from contracts.topics import CONTROL


def as_read(command: ControlCommand, **changed: bytes) -> Record:
    key, value, headers = control_record(command, source="urn:test")  # type: ignore[arg-type]
    found = dict(headers) | changed
    return Record(CONTROL.name, 0, 7, 0, key, value, tuple(found.items()))


@pytest.mark.parametrize(
    "command",
    [
        Pause(command_id="c1", group="triage", by="ada", reason="an outage"),
        Resume(command_id="c1", group="triage", worker="w1"),
        Drain(command_id="c1", group="triage"),
        SetConcurrency(command_id="c1", group="triage", lanes=5),
        ControlAnswered(command_id="c1", group="triage", worker="w1", done=False, detail="away"),
    ],
)
def test_what_is_written_is_read_back(command: ControlCommand) -> None:
    assert command_in(as_read(command)) == command


def test_orders_and_answers_have_ids_of_their_own_that_stay_the_same() -> None:
    order = Pause(command_id="c1", group="triage")
    answers = [ControlAnswered(command_id="c1", group="triage", worker=name, done=True) for name in ("a", "b", "a")]
    ids = [dict(as_read(command).headers)["ce_id"] for command in (order, *answers)]
    assert ids[0] == b"c1"
    assert ids[1] == ids[3]
    assert len(set(ids)) == 3


def test_fields_of_a_later_version_are_ignored_and_another_schema_is_not_read() -> None:
    record = as_read(Pause(command_id="c1", group="triage"))
    assert record.value is not None
    later = Record(CONTROL.name, 0, 7, 0, record.key, record.value[:-1] + b',"until":"noon"}', record.headers)
    assert command_in(later) == Pause(command_id="c1", group="triage")
    with pytest.raises(Undecodable):
        command_in(as_read(Pause(command_id="c1", group="triage"), ce_dataschema=b"urn:switchyard:Pause:2"))


@pytest.mark.parametrize(
    ("value", "kind"), [(None, b"Pause"), (b"{", b"Pause"), (b"{}", b"Pause"), (b"{}", b"Stop"), (b"{}", b"\xff")]
)
def test_what_is_no_command_is_refused_without_quoting_it(value: bytes | None, kind: bytes) -> None:
    with pytest.raises(Undecodable):
        command_in(Record(CONTROL.name, 0, 7, 0, None, value, (("ce_type", kind),)))
