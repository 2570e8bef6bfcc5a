"""`python -m tests.mutations`: plants each bug in a copy of the project and looks whether its tests turn red."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.planted import BUGS, Bug

ROOT = Path(__file__).parents[2]
_PASSED, _FAILED = 0, 1  # pytest's exit codes


def main() -> int:
    """Plant them one by one; 1 when one is not found, or when the tests are red without any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("words", nargs="*", help="only bugs whose names hold one of these")
    words = parser.parse_args().words
    bugs = [bug for bug in BUGS if not words or any(word in bug.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="switchyard-mutations-") as folder:
        copy = _copied_to(Path(folder) / "project")
        return _check(copy, bugs)


def _check(copy: Path, bugs: Sequence[Bug]) -> int:
    code, last = _ran(copy, sorted({test for bug in bugs for test in bug.tests}))
    if code != _PASSED:
        print(f"the tests are not green without a bug: {last}")
        return 1
    missed = [bug for bug in bugs if not _is_found(copy, bug)]
    print(f"{len(bugs)} bugs planted, {len(bugs) - len(missed)} found, {len(missed)} not found")
    return 1 if missed else 0


def _is_found(copy: Path, bug: Bug) -> bool:
    """Plant it, run its tests, take it out again."""
    path, began = copy / bug.file, time.monotonic()
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace(bug.old, bug.new), encoding="utf-8")
    try:
        code, last = _ran(copy, bug.tests)
    finally:
        path.write_text(sound, encoding="utf-8")
    verdict = {_FAILED: "red", _PASSED: "NOT FOUND"}.get(code, f"pytest ended with {code}")
    print(f"{verdict:9} {time.monotonic() - began:5.1f} s  {bug.name}: {last}", flush=True)
    return code == _FAILED


def _ran(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests of the copy until one fails; returns the exit code and the name of what failed, or the last line."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--timeout=60", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "SWITCHYARD_REQUIRE_SERVICES": "1"},
        capture_output=True,
        text=True,
    )
    failed = re.findall(r"^(?:FAILED|ERROR) \S+?::(\S+)", ran.stdout, re.MULTILINE)
    lines = (ran.stdout + ran.stderr).strip().splitlines()
    return ran.returncode, failed[0] if failed else lines[-1] if lines else ""


def _copied_to(folder: Path) -> Path:
    """The project as it is now, with what is not committed yet."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


if __name__ == "__main__":
    sys.exit(main())
