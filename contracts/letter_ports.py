"""The port of dead letters: what tickets wait for, and who did what about it."""

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Protocol

from contracts.letters import Acted, Blocked, Fate, Job, JobLetter, JobStatus, Origin
from contracts.ports import Record


class LetterBook(Protocol):
    """The dead letters that tickets wait for, and the book of jobs about dead letters, kept in one place.

    So what a job does to a blocked ticket is done, and noted, in one write; and of several jobs one has a letter.
    """

    async def blocked(self, group: str) -> Sequence[Blocked]:
        """The tickets that wait behind a dead letter, longest ago first."""

    async def kept(self, group: str, parked: Blocked) -> Record | None:
        """The record a ticket waits behind; None: it does not any more."""

    async def queued(self, group: str, letters: Collection[tuple[str, Origin]]) -> Set[Origin]:
        """Which of these records (ticket id, origin) are in their tickets' queues and no dead letters there."""

    async def acts(self, group: str) -> Mapping[str, Acted]:
        """What was done about a group's letters, by letter id."""

    async def begin(self, job: Job, letters: Sequence[JobLetter]) -> None:
        """Note a job, and its letters in their order. Nothing if it is noted already."""

    async def find(self, job_id: str) -> Job | None:
        """The job as it is now."""

    async def latest(self, limit: int) -> Sequence[Job]:
        """Jobs, the latest first."""

    async def running(self, group: str) -> Sequence[Job]:
        """A group's jobs that were not ended, the latest first; somebody works on them, or they can be resumed."""

    async def letters_of(self, job_id: str) -> Sequence[JobLetter]:
        """A job's letters in their order, each with what became of it."""

    async def take(self, job_id: str, limit: int) -> Sequence[JobLetter]:
        """Act on the job's next letters, and note it, in one write; returns them with their fates.

        A redriven letter that blocks its ticket is freed: first of the queue still, due at once, no try spent. One
        that is TAKEN is the caller's to finish and to `note`, and is told again until then. Empty: nothing is left,
        or the job was ended.
        """

    async def note(self, job_id: str, letter_id: str, fate: Fate) -> None:
        """Note what became of a letter that was taken."""

    async def end(self, job_id: str, status: JobStatus) -> bool:
        """End a running job: nothing of it is taken from then on. False: it had ended before."""
