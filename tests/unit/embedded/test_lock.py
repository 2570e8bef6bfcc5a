import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from ops.embedded.lock import owning

HOLD = """
import sys
from pathlib import Path
from ops.embedded.lock import owning
with owning(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_has_one_owner_and_the_refusal_names_it(tmp_path: Path) -> None:
    refusal = rf"already up on {tmp_path} \(process {os.getpid()}\)"
    with owning(tmp_path), pytest.raises(Misconfigured, match=refusal), owning(tmp_path):
        pytest.fail("owned twice")


def test_an_owner_that_is_done_lets_the_next_one_in(tmp_path: Path) -> None:
    with owning(tmp_path):
        pass
    with owning(tmp_path):
        pass


def test_a_killed_owner_leaves_no_stale_lock(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(Misconfigured, match=f"process {owner.pid}"), owning(tmp_path):
        pytest.fail("owned twice")
    owner.kill()
    owner.communicate()
    with owning(tmp_path):
        assert (tmp_path / "stack.lock").read_text() == f"{os.getpid()}\n"
