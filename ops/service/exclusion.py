"""A group is rewound by one at a time, and not while somebody redrives or discards its dead letters."""

import contextlib
import uuid
from collections.abc import AsyncIterator

from bus.lease import Lease
from contracts.errors import SupportError
from contracts.letter_ports import LetterBook
from contracts.ports import Leases

LEASE_S = 15.0
"""So long after it was killed, a rewind or a job still keeps others out."""


def job_lease(leases: Leases, job_id: str) -> Lease:
    """The right to work on a job about dead letters."""
    return Lease(leases, _job(job_id), str(uuid.uuid4()), lease_s=LEASE_S)


@contextlib.asynccontextmanager
async def rewinding_alone(leases: Leases, book: LetterBook, group: str, by: str) -> AsyncIterator[Lease]:
    """Nobody else rewinds the group, or begins to act on its letters, while one is inside.

    Raises SupportError: somebody is at it already.
    """
    lease = Lease(leases, _rewind(group), f"{by}/{uuid.uuid4()}", lease_s=LEASE_S)
    if not await lease.held():
        await require_no_rewind(leases, group)
        raise SupportError(f"somebody has just rewound {group}; look where it stands, and try again")
    async with lease.kept():
        await _require_no_job(leases, book, group)  # each takes its own lease before it looks for the other's
        yield lease


async def require_no_rewind(leases: Leases, group: str) -> None:
    """Raises SupportError: somebody rewinds the group."""
    owner = await leases.holder(_rewind(group))
    if owner is not None:
        by, _, _ = owner.rpartition("/")
        raise SupportError(
            f"{by} rewinds {group} at this moment; try again once that is done (one that was killed lets go within"
            f" {LEASE_S:g} s)"
        )


async def _require_no_job(leases: Leases, book: LetterBook, group: str) -> None:
    for job in await book.running(group):
        if await leases.holder(_job(job.job_id)) is not None:
            raise SupportError(
                f"{job.by} {job.act}s dead letters of {group} at this moment; wait for the job {job.job_id}, or end"
                f" it with `switchyard dlt cancel {job.job_id}`"
            )


def _rewind(group: str) -> str:
    return f"rewind/{group}"


def _job(job_id: str) -> str:
    return f"letters/{job_id}"
