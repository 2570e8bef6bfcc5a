import pytest
from aiokafka.record._crc32c import crc as crc32c
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bus.unreadable import _has_odd_names, _records


def batch(*names: bytes, compression: int = 0) -> bytes:
    """A record batch as it lies in Kafka, one record a header name."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, 0, 10**6)
    for offset, name in enumerate(names):
        builder.append(offset, 1000, b"key", b"value", [("?" * len(name), b"v")])
    plain = bytes(builder.build())
    if compression:
        return plain
    body = plain[21:]
    for name in names:
        body = body.replace(b"?" * len(name), name, 1)
    return plain[:17] + crc32c(body).to_bytes(4, "big") + body


def test_only_names_that_are_not_utf8_are_odd_not_those_that_spell_an_escape() -> None:
    read = list(_records(batch(b"plain", b"\xff\xfe\xfd\xfc", rb"sp\xff", "grün!!!!".encode())))
    assert [_has_odd_names(record) for record in read] == [False, True, False, False]
    assert [(record.key, record.value, record.headers[0][1]) for record in read] == [(b"key", b"value", b"v")] * 4


def test_several_batches_are_read_and_a_cut_one_is_left() -> None:
    whole = batch(b"one", b"three")
    assert len(list(_records(whole + whole))) == 4
    assert len(list(_records(whole + whole[:-1]))) == 2
    assert list(_records(b"")) == []


@pytest.mark.parametrize("compression", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_are_read(compression: int) -> None:
    [read] = _records(batch(b"name", compression=compression))
    assert (read.key, read.value, read.headers) == (b"key", b"value", [("????", b"v")])
