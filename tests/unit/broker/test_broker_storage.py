"""What is on disk: logs, journals, and what is left of them after a crash."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode

from ops.broker.journal import DamagedJournal, Journal
from ops.broker.log import LogLimits, PartitionLog
from ops.broker.offsets import Committed, OffsetStore
from ops.broker.producers import Producers
from ops.broker.records import HEADER, BatchRefused, checked, first_at_or_after, header_at
from ops.broker.topics import Topics
from tests.contract.broker.kit import batch_of

T0 = 1_700_000_000_000


def limits(**changed: Any) -> LogLimits:
    values = {"segment_bytes": 1 << 20, "max_message_bytes": 1 << 20, "retention_ms": -1, "retention_bytes": -1}
    return LogLimits(**(values | {"deletes": True} | changed))


def opened(folder: Path, start_offset: int = 0, **changed: Any) -> PartitionLog:
    return PartitionLog(folder / "log", limits(**changed), start_offset=start_offset, fsync=False)


def offsets_in(log: PartitionLog) -> list[int]:
    """The base offsets of the batches, read from the first on."""
    found, offset = [], log.start_offset
    while data := log.read(offset, 1, at_least_one=True):
        header = header_at(data)
        found.append(header.base_offset)
        offset = header.next_offset
    return found


# --- the log ----------------------------------------------------------------------------------------------


def test_a_log_cut_off_anywhere_comes_back_with_its_whole_batches(tmp_path: Path) -> None:
    log = opened(tmp_path)
    sizes = [0]
    for _ in range(3):
        log.append(batch_of([b"a", b"b"]))
        sizes.append(log.size)
    log.close()
    [file] = (tmp_path / "log").iterdir()
    whole = file.read_bytes()
    for length in range(len(whole), -1, -1):
        file.write_bytes(whole[:length])
        log = opened(tmp_path)
        kept = max(number for number, size in enumerate(sizes) if size <= length)
        assert (log.next_offset, log.size) == (2 * kept, sizes[kept])
        assert log.append(batch_of([b"next"])) == 2 * kept
        log.close()


def test_a_cut_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = opened(tmp_path)
    log.append(batch_of([b"a"]))
    log.close()
    [file] = (tmp_path / "log").iterdir()
    with file.open("ab") as out:
        out.write(batch_of([b"torn"])[:-5])
    opened(tmp_path).close()
    assert "cut off an unfinished batch" in caplog.text


def test_a_batch_whose_bytes_changed_on_disk_is_cut_off(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(batch_of([b"a"]))
    log.append(batch_of([b"b" * 100]))
    log.close()
    [file] = (tmp_path / "log").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert opened(tmp_path).next_offset == 1


def test_a_full_disk_stores_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(batch_of([b"a"]))
    size = log.size
    with files_limited_to(size + 100), pytest.raises(OSError, match="part of the batch"):
        log.append(batch_of([b"x" * 5000]))
    assert (log.size, log.next_offset) == (size, 1)
    assert [file.stat().st_size for file in (tmp_path / "log").iterdir()] == [size]
    assert log.append(batch_of([b"b"])) == 1
    log.close()
    assert offsets_in(opened(tmp_path)) == [0, 1]


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_reading_goes_on_from_file_to_file_and_over_a_restart(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1000)
    for number in range(20):
        log.append(batch_of([b"x" * 200], timestamps={0: T0 + number}))
    assert len(list((tmp_path / "log").iterdir())) > 3
    for log_now in (log, opened(tmp_path, segment_bytes=1000)):
        assert offsets_in(log_now) == list(range(20))
        assert log_now.offset_of_time(T0 + 11) == (11, T0 + 11)
        assert log_now.offset_of_time(T0 + 20) is None
        assert log_now.bytes_from(0) == log_now.size == 20 * log_now.bytes_from(19)


def test_a_reader_gets_whole_files_of_what_it_asks_for(tmp_path: Path) -> None:
    log = opened(tmp_path)
    batch = batch_of([b"x" * 1000])
    for _ in range(50):
        log.append(batch)
    assert len(log.read(10, 5 * len(batch), at_least_one=False)) == 5 * len(batch)
    assert log.read(10, len(batch) - 1, at_least_one=False) == b""
    assert len(log.read(10, 1, at_least_one=True)) == len(batch)
    assert log.read(50, 1000, at_least_one=True) == b""


def test_a_producer_is_remembered_over_a_restart(tmp_path: Path) -> None:
    log = opened(tmp_path)
    batch = batch_of([b"a", b"b"], producer_id=9, epoch=0, sequence=0)
    assert log.append(batch) == 0
    log.close()
    log = opened(tmp_path)
    assert log.append(batch) == 0
    assert log.next_offset == 2
    with pytest.raises(BatchRefused):
        log.append(batch_of([b"c"], producer_id=9, epoch=0, sequence=3))


def test_old_files_are_deleted_and_offsets_go_on(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1000, retention_ms=1000)
    for number in range(20):
        log.append(batch_of([b"x" * 200], timestamps={0: T0 + 100 * number}))
    log.enforce_retention(T0 + 2000)
    assert 0 < log.start_offset <= 10
    log.enforce_retention(T0 + 10_000)
    assert (log.start_offset, log.next_offset, log.size) == (20, 20, 0)
    log.close()
    log = opened(tmp_path, segment_bytes=1000, retention_ms=1000)
    assert (log.start_offset, log.append(batch_of([b"x"]))) == (20, 20)


def test_files_beyond_the_size_are_deleted_oldest_first(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1000, retention_bytes=2000)
    for _ in range(20):
        log.append(batch_of([b"x" * 200]))
    log.enforce_retention(T0)
    assert 2000 <= log.size < 3000
    assert offsets_in(log)[-1] == 19


def test_a_compacted_log_is_kept(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=1000, retention_ms=1, retention_bytes=1, deletes=False)
    for _ in range(20):
        log.append(batch_of([b"x" * 200]))
    log.enforce_retention(T0 + 10_000)
    assert log.start_offset == 0


# --- batches ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BatchRefused):
        checked(data)


@given(st.integers(0, 140), st.integers(1, 255))
def test_a_batch_changed_anywhere_the_checksum_covers_is_refused(position: int, flip: int) -> None:
    batch = bytearray(batch_of([b"x" * 40, b"y" * 40]))
    batch[8 + position % (len(batch) - 8)] ^= flip
    if not 12 <= 8 + position % (len(batch) - 8) < 16:  # the leader's epoch is the broker's to write
        with pytest.raises(BatchRefused):
            checked(bytes(batch))


@pytest.mark.parametrize(
    ("attributes", "code"),
    [(0x10, ErrorCode.invalid_record), (0x20, ErrorCode.invalid_record), (0x08, ErrorCode.invalid_timestamp)],
)
def test_batches_of_transactions_and_of_the_brokers_clock_are_refused(attributes: int, code: ErrorCode) -> None:
    with pytest.raises(BatchRefused) as refused:
        checked(with_attributes(batch_of([b"x"]), attributes))
    assert refused.value.code is code


def with_attributes(batch: bytes, attributes: int) -> bytes:
    covered = attributes.to_bytes(2, "big") + batch[23:]
    return batch[:17] + crc32c(covered).to_bytes(4, "big") + covered


def test_two_batches_in_one_are_refused() -> None:
    with pytest.raises(BatchRefused) as refused:
        checked(batch_of([b"x"]) * 2)
    assert refused.value.code is ErrorCode.invalid_record


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 60), st.integers(0, 20))
def test_the_first_record_of_a_time_is_found(times: list[int], wanted: int, min_offset: int) -> None:
    batch = batch_of([b"x"] * len(times), timestamps={n: T0 + time for n, time in enumerate(times)})
    late_enough = [(n, T0 + time) for n, time in enumerate(times) if time >= wanted and n >= min_offset]
    assert first_at_or_after(batch, T0 + wanted, min_offset) == next(iter(late_enough), None)


def test_records_that_end_too_early_are_told_apart() -> None:
    with pytest.raises(ValueError, match="too early"):
        first_at_or_after(batch_of([b"x"] * 3)[: HEADER.size], T0, 0)


def test_the_producers_that_are_remembered_are_bounded() -> None:
    producers = Producers()
    for producer_id in range(10_001):
        producers.appended(header_at(batch_of([b"x"], producer_id=producer_id, epoch=0, sequence=0)))
    first, last = (header_at(batch_of([b"x"], producer_id=n, epoch=0, sequence=0)) for n in (0, 10_000))
    assert producers.earlier(first) is None
    assert producers.earlier(last) == 0


def test_sequence_numbers_wrap() -> None:
    producers = Producers()
    producers.appended(header_at(batch_of([b"x"], producer_id=1, epoch=0, sequence=2**31 - 1)))
    assert producers.earlier(header_at(batch_of([b"x"], producer_id=1, epoch=0, sequence=0))) is None


# --- journals ---------------------------------------------------------------------------------------------


def written(path: Path, *changes: dict[str, int]) -> None:
    journal = Journal(path, list, fsync=False)
    journal.open(lambda _: None)
    journal.append(*changes)
    journal.close()


def replayed(path: Path) -> list[dict[str, int]]:
    seen: list[dict[str, int]] = []
    journal = Journal(path, lambda: seen, fsync=True)
    journal.open(seen.append)
    journal.close()
    return seen


def test_a_journal_cut_off_anywhere_keeps_its_whole_changes(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, {"n": 1}, {"n": 2})
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert replayed(path) == [{"n": 1}, {"n": 2}][: whole[:length].count(b"\n")]


def test_a_journal_damaged_in_its_middle_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, {"n": 1}, {"n": 2})
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7'))
    with pytest.raises(DamagedJournal):
        replayed(path)


def test_a_journal_on_a_full_disk_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, list, fsync=False)
    journal.open(lambda _: None)
    journal.append({"n": 1})
    with files_limited_to(path.stat().st_size + 5), pytest.raises(OSError, match="part of the change"):
        journal.append({"n": 2})
    journal.append({"n": 3})
    journal.close()
    assert replayed(path) == [{"n": 1}, {"n": 3}]


def test_many_commits_leave_a_small_journal(tmp_path: Path) -> None:
    store = OffsetStore(tmp_path, fsync=False)
    store.open({"t"})
    for offset in range(2000):
        store.commit("g", [(("t", 0), Committed(offset, "x" * 4096))])
    store.compact_if_large()
    store.close()
    assert (tmp_path / "offsets.journal").stat().st_size < 1_000_000 * 10
    store = OffsetStore(tmp_path, fsync=False)
    store.open({"t"})
    assert (tmp_path / "offsets.journal").stat().st_size < 10_000
    assert store.of("g")["t", 0].offset == 1999


def test_offsets_of_topics_that_are_gone_are_dropped_at_start(tmp_path: Path) -> None:
    store = OffsetStore(tmp_path, fsync=False)
    store.open({"t", "gone"})
    store.commit("g", [(("t", 0), Committed(1, "")), (("gone", 0), Committed(1, ""))])
    store.commit("h", [(("gone", 0), Committed(1, ""))])
    store.close()
    store = OffsetStore(tmp_path, fsync=False)
    store.open({"t"})
    assert (set(store.groups()), set(store.of("g"))) == ({"g"}, {("t", 0)})


def test_what_a_crash_left_of_a_deleted_topic_is_removed(tmp_path: Path) -> None:
    topics = Topics(tmp_path, fsync=False)
    topics.open()
    topics.create("kept", 1, {}, dry_run=False)
    topics.close()
    left = tmp_path / "topics" / "gone-3"
    left.mkdir()
    (left / f"{0:020d}.log").write_bytes(batch_of([b"x"]))
    topics = Topics(tmp_path, fsync=False)
    topics.open()
    assert [folder.name for folder in (tmp_path / "topics").iterdir()] == ["kept-0"]
    topics.close()


def test_deleted_records_and_used_producer_ids_stay_so_over_a_restart(tmp_path: Path) -> None:
    topics = Topics(tmp_path, fsync=False)
    topics.open()
    topics.create("t", 1, {}, dry_run=False)
    log = topics.log("t", 0)
    assert log is not None
    for _ in range(4):
        log.append(batch_of([b"x"]))
    topics.delete_records("t", 0, 3)
    given = {topics.new_producer_id() for _ in range(1500)}
    cluster_id = topics.cluster_id
    topics.close()
    topics = Topics(tmp_path, fsync=False)
    topics.open()
    log = topics.log("t", 0)
    assert log is not None
    assert (log.start_offset, log.next_offset) == (3, 4)
    assert topics.new_producer_id() not in given
    assert topics.cluster_id == cluster_id
    topics.close()
