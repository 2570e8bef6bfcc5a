"""Committed offsets of all groups, in one journal."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ops.broker.journal import Change, Journal


class Committed(NamedTuple):
    """A committed offset and the note that came with it."""

    offset: int
    metadata: str


Partition = tuple[str, int]  # topic, partition


class OffsetStore:
    """What every group has committed; kept until its topic or the group is deleted."""

    def __init__(self, data_dir: Path, *, fsync: bool) -> None:
        self._groups: dict[str, dict[Partition, Committed]] = {}
        self._journal = Journal(data_dir / "offsets.journal", self._snapshot, fsync=fsync)

    def open(self, topics: Collection[str]) -> None:
        """Read what is on file; offsets of topics that no longer exist are dropped."""
        self._journal.open(self._apply)
        for topic in {topic for offsets in self._groups.values() for topic, _ in offsets}.difference(topics):
            self.drop_topic(topic)

    def close(self) -> None:
        """Flush everything to the disk."""
        self._journal.close()

    def _apply(self, change: Change) -> None:
        match change["op"]:
            case "commit":
                committed = Committed(change["offset"], change["metadata"])
                self._groups.setdefault(change["group"], {})[change["topic"], change["partition"]] = committed
            case "group gone":
                self._groups.pop(change["group"], None)
            case "topic gone":
                for group, offsets in list(self._groups.items()):
                    self._keep(group, {key: value for key, value in offsets.items() if key[0] != change["topic"]})

    def _keep(self, group: str, offsets: dict[Partition, Committed]) -> None:
        if offsets:
            self._groups[group] = offsets
        else:
            del self._groups[group]

    def _snapshot(self) -> Iterator[Change]:
        for group, offsets in self._groups.items():
            yield from _commits(group, offsets.items())

    def groups(self) -> Collection[str]:
        """The groups that have committed anything."""
        return self._groups.keys()

    def of(self, group: str) -> Mapping[Partition, Committed]:
        """What a group has committed."""
        return self._groups.get(group, {})

    def commit(self, group: str, offsets: Iterable[tuple[Partition, Committed]]) -> None:
        """Store offsets of one group, all or (on an OSError) none."""
        self._change(*_commits(group, offsets))

    def drop_group(self, group: str) -> None:
        """Forget a group."""
        self._change({"op": "group gone", "group": group})

    def drop_topic(self, topic: str) -> None:
        """Forget what was committed for a topic."""
        self._change({"op": "topic gone", "topic": topic})

    def compact_if_large(self) -> None:
        """Write the journal anew when it has outgrown what it holds."""
        self._journal.compact_if_large()

    def _change(self, *changes: Change) -> None:
        self._journal.append(*changes)
        for change in changes:
            self._apply(change)


def _commits(group: str, offsets: Iterable[tuple[Partition, Committed]]) -> Iterator[Change]:
    for (topic, partition), (offset, metadata) in offsets:
        place = {"group": group, "topic": topic, "partition": partition}
        yield {"op": "commit", **place, "offset": offset, "metadata": metadata}
