"""The password of a stack's PostgreSQL and Valkey: both listen on TCP, which other users of the machine reach too."""

import os
import secrets
from pathlib import Path

from ops.embedded.process import Account


def password_kept_in(path: Path, account: Account) -> str:
    """The password, made at the first start; only its account may read the file, which initdb reads too."""
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(16))
            os.fchown(descriptor, *account)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    return path.read_text().strip()
