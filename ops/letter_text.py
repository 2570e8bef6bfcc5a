"""Dead letters and jobs as JSON values, and as lines for a terminal."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.letters import Fate, Job, JobLetter, Standing
from contracts.ports import Record
from llm.redaction import ALWAYS, BY_SETTING, Masks
from ops.service.letters import Found, Told

_BECAME = {Standing.BLOCKS: "failed_again", Standing.QUEUED: "under_way", Standing.SETTLED: "settled"}


def told(one: Found) -> dict[str, Any]:
    """A dead letter as JSON values, without its bytes."""
    letter = one.letter
    return {
        "letter_id": letter.letter_id,
        "agent": letter.group,
        "standing": str(one.standing),
        "ticket_id": letter.ticket_id,
        "tenant_id": letter.tenant_id,
        "fingerprint": letter.fingerprint,
        "error": letter.error,
        "message": letter.message,
        "cause": letter.cause,
        "attempts": letter.attempts,
        "failed_at": letter.failed_at.isoformat(),
        "behind": one.behind,
        "redrives": one.redrives,
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
        "trace_id": letter.trace_id,
        "copies": [{"topic": c.topic, "partition": c.partition, "offset": c.offset} for c in letter.copies],
    }


def listed(found: Sequence[Found], limit: int) -> dict[str, Any]:
    """Letters, the first so many of them, and counts of all by fingerprint, the most first."""
    by_print: dict[tuple[str, str], list[Found]] = {}
    for one in found:
        by_print.setdefault((one.letter.group, one.letter.fingerprint), []).append(one)
    prints = sorted(by_print.values(), key=len, reverse=True)
    return {
        "count": len(found),
        "fingerprints": [_counted(alike) for alike in prints],
        "letters": [told(one) for one in found[:limit]],
    }


def shown(one: Found, record: Record | None, *, raw: bool) -> dict[str, Any]:
    """A dead letter with its record. What looks like a secret or tells of a person is masked, unless `raw`."""
    masks = Masks({**ALWAYS, **BY_SETTING})

    def written(value: bytes | None) -> Any:
        return None if value is None else _raw(value) if raw else _masked(value, masks)

    if record is None:
        return told(one) | {"record": None}
    headers = [[name, written(value)] for name, value in record.headers]
    return told(one) | {"record": {"key": written(record.key), "value": written(record.value), "headers": headers}}


def job_told(job: Job) -> dict[str, Any]:
    """A job as JSON values."""
    return {
        "job_id": job.job_id,
        "act": str(job.act),
        "agent": job.group,
        "by": job.by,
        "reason": job.reason,
        "rate": job.rate,
        "status": str(job.status),
        "created_at": job.created_at.isoformat() if job.created_at else None,
        "ended_at": job.ended_at.isoformat() if job.ended_at else None,
    }


def job_with_letters(told: Told) -> dict[str, Any]:
    """A job, and what became of each of its letters."""
    rows = [_job_letter(letter, told.now) for letter in told.letters]
    return job_told(told.job) | {"counts": dict(Counter(row["fate"] for row in rows)), "letters": rows}


def planned(job: Job, letters: Sequence[JobLetter]) -> dict[str, Any]:
    """What a job would do."""
    would = [_job_letter(letter, {}) | {"fate": _would(job, letter)} for letter in letters]
    about = {name: value for name, value in job_told(job).items() if name not in ("job_id", "status")}
    return about | {"dry_run": True, "counts": dict(Counter(row["fate"] for row in would)), "letters": would}


def as_lines(document: Mapping[str, Any]) -> str:
    """Listed letters for a terminal: by fingerprint, then one a line."""
    if not document["count"]:
        return "no dead letters"
    alike = [
        f"{p['count']:>7}  {p['fingerprint']}  {p['agent']}  {p['error']}: {p['message']}"
        f"  ({p['tickets']} tickets, {p['behind']} records behind, {p['first_at']} to {p['last_at']})"
        for p in document["fingerprints"]
    ]
    letters = [_line(one) for one in document["letters"]]
    more = document["count"] - len(letters)
    rest = [f"and {more} more; --limit shows them"] if more else []
    return _plain("\n".join([*alike, "", *letters, *rest]))


def as_text(document: Mapping[str, Any]) -> str:
    """A shown letter for a terminal."""
    named = [f"  {name}: {value}" for name, value in document.items() if name not in ("record", "copies")]
    lines = [_line(document), *named]
    for copy in document["copies"]:
        lines.append(f"  copy: {copy['topic']} {copy['partition']}/{copy['offset']}")
    record = document["record"]
    if record is None:
        return _plain("\n".join([*lines, "  record: expired"]))
    lines += [f"  header {name}: {value}" for name, value in record["headers"]]
    return _plain("\n".join([*lines, f"  key: {record['key']}", f"  value: {record['value']}"]))


def job_line(document: Mapping[str, Any]) -> str:
    """A job for a terminal."""
    counts = ", ".join(f"{count} {fate.replace('_', ' ')}" for fate, count in document.get("counts", {}).items())
    if document.get("dry_run") and not counts:
        return f"no dead letters of {document['agent']} wait for a person"
    why = f" ({document['reason']})" if document["reason"] else ""
    head = "would " if document.get("dry_run") else f"{document['job_id']}  {document['status']}  "
    return _plain(f"{head}{document['act']} of {document['agent']} by {document['by']}{why}: {counts or '-'}")


def _counted(alike: Sequence[Found]) -> dict[str, Any]:
    first, last = alike[0].letter, alike[-1].letter
    return {
        "fingerprint": first.fingerprint,
        "agent": first.group,
        "error": first.error,
        "message": last.message,
        "count": len(alike),
        "tickets": len({one.letter.ticket_id for one in alike if one.letter.ticket_id}),
        "behind": sum(one.behind for one in alike),
        "first_at": first.failed_at.isoformat(),
        "last_at": last.failed_at.isoformat(),
    }


def _job_letter(letter: JobLetter, now: Mapping[str, Standing]) -> dict[str, Any]:
    standing = now.get(letter.letter_id)
    return {
        "letter_id": letter.letter_id,
        "ticket_id": letter.ticket_id,
        "error": letter.error,
        "fingerprint": letter.fingerprint,
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
        "nth": letter.nth,
        "fate": str(letter.fate),
        "now": _BECAME[standing] if standing else None,
        "acted_at": letter.acted_at.isoformat() if letter.acted_at else None,
    }


def _would(job: Job, letter: JobLetter) -> str:
    if letter.fate is Fate.HELD_BACK:
        return str(letter.fate)
    if job.act == "discard":
        return str(Fate.DISCARDED)
    return str(Fate.FREED if letter.parked_id is not None else Fate.PUBLISHED)


def _line(one: Mapping[str, Any]) -> str:
    return (
        f"{one['letter_id']}  {one['failed_at']}  {one['agent']}  {one['standing']}  ticket {one['ticket_id'] or '-'}"
        f"  {one['error']}: {one['message']}  (behind {one['behind']}, redrives {one['redrives']})"
    )


def _raw(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _masked(value: bytes, masks: Masks) -> Any:
    try:
        return masks.masked(value.decode())
    except UnicodeDecodeError:
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}


def _plain(text: str) -> str:
    """Text without what a terminal would obey: strangers wrote some of it."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
