"""Becomes the program it is given, tied to the life of its parent. Run as a script, it imports nothing of ours.

A script and not a `preexec_fn`, because that is unsafe in a process with threads. The account is changed before the
tie is made: changing it would undo the tie.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
UNCHANGED = -1


def main(arguments: list[str]) -> None:
    """Take on an account, ask to be signalled when the parent dies, and become the command."""
    parent, orphan_signal, uid, gid, *command = arguments
    if int(uid) != UNCHANGED:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    _die_with(int(parent), int(orphan_signal))
    os.execvp(command[0], command)


def _die_with(parent: int, orphan_signal: int) -> None:
    """Linux only: elsewhere a killed parent leaves its children, and the next start cannot find them."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, orphan_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before the tie was made
        sys.exit("the stack that started this is gone")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot start: {error}")
