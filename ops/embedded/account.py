"""Whom PostgreSQL runs as: it refuses to run as root, and then needs a way to its files."""

import os
import pwd
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from contracts.errors import Misconfigured
from ops.embedded.process import OUR_OWN, Account

_READ = stat.S_IRGRP | stat.S_IROTH
_ENTER = stat.S_IXGRP | stat.S_IXOTH


def account_for(cluster: Path) -> Account:
    """Nobody else, unless this is root: then the cluster's owner, or `nobody` for a new one."""
    if os.geteuid() != 0:
        return OUR_OWN
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise Misconfigured("PostgreSQL refuses to run as root, and there is no user `nobody` to run it as") from error
    return Account(nobody.pw_uid, nobody.pw_gid)


def let_in(paths: Iterable[Path], log: Callable[[str], None]) -> None:
    """Let other accounts pass through the directories above these paths, though not list them."""
    try:
        for directory in {parent for path in paths for parent in path.resolve().parents}:
            mode = stat.S_IMODE(directory.stat().st_mode)
            if mode & _ENTER != _ENTER:
                directory.chmod(mode | _ENTER)
                log(f"{directory} may now be passed through (go+x): PostgreSQL cannot run as root and needs the way")
    except OSError as error:
        raise Misconfigured(f"PostgreSQL, which cannot run as root, cannot get at its files: {error}") from error


def let_read(installation: Path) -> None:
    """Let other accounts run an installation that a strict umask had closed to them."""
    try:
        for path in (installation, *installation.rglob("*")):
            mode = path.stat().st_mode
            wanted = mode | _READ | (_ENTER if mode & stat.S_IXUSR else 0)
            if mode != wanted:
                path.chmod(stat.S_IMODE(wanted))
    except OSError as error:
        raise Misconfigured(f"PostgreSQL, which cannot run as root, cannot read {installation}: {error}") from error
