"""The book of dead letters in memory, beside the parked tickets it is about."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from contracts.letters import Act, Acted, Blocked, Fate, Job, JobLetter, JobStatus, Origin
from contracts.ports import Record
from state.letters import fate_of_its_own
from state.memory_parking import MemoryParking


@dataclass(slots=True)
class MemoryLetterBook:
    """The book; each step is done without a pause."""

    parking: MemoryParking
    _jobs: dict[str, Job] = field(default_factory=dict)
    _letters: dict[str, list[JobLetter]] = field(default_factory=dict)  # by job
    _acts: dict[tuple[str, int], tuple[str, Act]] = field(default_factory=dict)  # by letter and nth: group and act

    async def blocked(self, group: str) -> Sequence[Blocked]:
        """The tickets that wait behind a dead letter, longest ago first."""
        return self.parking.blocked(group)

    async def kept(self, group: str, parked: Blocked) -> Record | None:
        """The record a ticket waits behind; None: it does not any more."""
        return self.parking.kept(group, parked.ticket_id, parked.parked_id)

    async def queued(self, group: str, letters: Collection[tuple[str, Origin]]) -> Set[Origin]:
        """Which of these records are in their tickets' queues and no dead letters there."""
        return {origin for ticket_id, origin in letters if self.parking.is_queued(group, ticket_id, origin)}

    async def acts(self, group: str) -> Mapping[str, Acted]:
        """What was done about a group's letters, by letter id."""
        return {letter_id: Acted(nth, act) for (letter_id, nth), (of, act) in sorted(self._acts.items()) if of == group}

    async def begin(self, job: Job, letters: Sequence[JobLetter]) -> None:
        """Note a job, and its letters in their order; see the port."""
        if job.job_id not in self._jobs:
            self._jobs[job.job_id] = replace(job, created_at=datetime.now(UTC))
            self._letters[job.job_id] = list(letters)

    async def find(self, job_id: str) -> Job | None:
        """The job as it is now."""
        return self._jobs.get(job_id)

    async def latest(self, limit: int) -> Sequence[Job]:
        """Jobs, the latest first."""
        return list(reversed(self._jobs.values()))[:limit]

    async def running(self, group: str) -> Sequence[Job]:
        """A group's jobs that were not ended, the latest first."""
        jobs = reversed(self._jobs.values())
        return [job for job in jobs if job.group == group and job.status is JobStatus.RUNNING]

    async def letters_of(self, job_id: str) -> Sequence[JobLetter]:
        """A job's letters in their order, each with what became of it."""
        return list(self._letters.get(job_id, []))

    async def take(self, job_id: str, limit: int) -> Sequence[JobLetter]:
        """Act on the job's next letters, and note it; see the port."""
        job = self._jobs.get(job_id)
        if job is None or job.status is not JobStatus.RUNNING:
            return []
        left = [one for one in self._letters[job_id] if one.fate in (Fate.PLANNED, Fate.TAKEN)][:limit]
        return [self._note(job_id, one, self._act_on(job, one)) for one in left]

    async def note(self, job_id: str, letter_id: str, fate: Fate) -> None:
        """Note what became of a letter that was taken."""
        [letter] = [one for one in self._letters[job_id] if one.letter_id == letter_id]
        self._note(job_id, letter, fate)

    async def end(self, job_id: str, status: JobStatus) -> bool:
        """End a running job; see the port."""
        job = self._jobs.get(job_id)
        if job is None or job.status is not JobStatus.RUNNING:
            return False
        self._jobs[job_id] = replace(job, status=status, ended_at=datetime.now(UTC))
        return True

    def _act_on(self, job: Job, letter: JobLetter) -> Fate:
        if letter.fate is Fate.TAKEN:
            return Fate.TAKEN
        if (letter.letter_id, letter.nth) in self._acts:
            return Fate.ELSEWHERE
        if letter.parked_id is not None and not self._blocks(job.group, letter):
            return Fate.GONE
        self._acts[letter.letter_id, letter.nth] = (job.group, job.act)
        if letter.parked_id is not None and job.act is Act.REDRIVE:
            self.parking.free(job.group, letter.ticket_id, letter.parked_id)
        return fate_of_its_own(job.act, letter)

    def _blocks(self, group: str, letter: JobLetter) -> bool:
        return letter.parked_id in {one.parked_id for one in self.parking.blocked(group)}

    def _note(self, job_id: str, letter: JobLetter, fate: Fate) -> JobLetter:
        letters = self._letters[job_id]
        letters[letters.index(letter)] = noted = replace(letter, fate=fate, acted_at=datetime.now(UTC))
        return noted
