"""What a drill's message asks of the worker that handles it, and what it must be answered."""

import hashlib
import json
from dataclasses import asdict, dataclass

COMMON = "common"  # questions that begin so may be answered from the cache


@dataclass(frozen=True, slots=True)
class Script:
    """The body of a message. Workers do as it says; nothing else tells them what to do."""

    question: str
    wait_s: float = 0.0  # what the handling takes
    fails: int = 0  # tries that fail before one succeeds
    cursed: bool = False  # fails for good
    padding: str = ""  # makes it large

    @property
    def cacheable(self) -> bool:
        """Whether its answer may be shared."""
        return self.question.startswith(COMMON)

    def body(self) -> str:
        """The script as a message's text."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, body: str) -> "Script":
        """The script that a message's text is."""
        return cls(**json.loads(body))


def answer_to(question: str) -> str:
    """The one right answer."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def reply_to(event_id: str, question: str) -> str:
    """The one right reply to a message: whose it is, and the answer."""
    return f"{event_id} {answer_to(question)}"
