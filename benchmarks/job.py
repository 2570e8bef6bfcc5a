"""What the driver tells an arm, and what the arm tells back: one JSON document each."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Job:
    """One slice of one arm."""

    arm: str
    bootstrap: str = ""
    topic: str = ""
    group: str = ""
    ends: tuple[int, ...] = ()  # how many records each partition of the topic holds
    concurrency: int = 100  # handlers in flight
    wait_s: float = 0.0  # what a handler waits
    warmup_s: float = 1.0  # from the first record handled to the opening of the window
    window_s: float = 5.0  # 0: until SIGTERM
    dsn: str = ""
    out_topic: str = ""
    session_timeout_s: float = 10.0
    options: dict[str, float | str] = field(default_factory=dict)  # what one benchmark alone asks for

    @property
    def records(self) -> int:
        """How many records the topic holds."""
        return sum(self.ends)


@dataclass(frozen=True, slots=True)
class Findings:
    """What one slice of one arm came to. Counts are of the whole slice where the window is not named."""

    window_s: float = 0.0
    window_handled: int = 0
    window_cpu_s: float = 0.0  # of the arm's process: user and system
    busy_s: float = 0.0  # handlers in flight, added up over the window
    useful_s: float = 0.0  # the same, each handler counted for what it was to wait, not for what it took
    handled: int = 0
    distinct: int = 0
    out_of_order: int = 0  # handled after a later record of the same key, or again
    overlaps: int = 0  # begun while another record of the same key was being handled
    commits: int = 0
    unsafe_commits: int = 0  # of an offset above a record that was not finished
    first_at: float = 0.0  # when the first record was handled, by the machine's monotonic clock
    rss_bytes: tuple[tuple[float, int], ...] = ()  # (seconds, resident memory)
    tasks: tuple[int, ...] = ()  # of the event loop, whenever the memory was looked at
    figures: dict[str, float] = field(default_factory=dict)  # what one benchmark alone measures

    @property
    def rate(self) -> float:
        """Records handled a second in the window."""
        return self.window_handled / self.window_s if self.window_s else 0.0

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time a record, in the window."""
        return self.window_cpu_s / self.window_handled * 1e6 if self.window_handled else 0.0
