"""Runs a command beside real services of its own: `python -m tests.services.run kafka postgres -- COMMAND`.

They run natively and durably, as one would run them: PostgreSQL flushes what it commits, Kafka's virtual machine
compiles in full. The command finds their addresses in SWITCHYARD_KAFKA__…, SWITCHYARD_POSTGRES__… and
SWITCHYARD_REDIS__….
"""

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.services.choice import required
from tests.services.kafka import native_kafka
from tests.services.native import NativeService, ServiceUnavailable
from tests.services.postgres import native_postgres, wheel_binaries
from tests.services.reaper import Reaper
from tests.services.redis import native_redis

NAMES = ("kafka", "postgres", "redis")


def main() -> int | str:
    """Start the services named, run the command, end them; the exit code is the command's."""
    names, _, command = " ".join(sys.argv[1:]).partition(" -- ")
    wanted = names.split()
    if not command or not set(wanted) <= set(NAMES):
        return f"usage: python -m tests.services.run [{'] ['.join(NAMES)}] -- COMMAND"
    reaper = Reaper()
    try:
        environment = dict(_started(name, reaper) for name in wanted)
        return subprocess.run(
            sys.argv[sys.argv.index("--") + 1 :], env={**os.environ, **environment}, check=False
        ).returncode
    except ServiceUnavailable as error:
        return str(error)
    finally:
        reaper.close()


def _started(name: str, reaper: Reaper) -> Sequence[str]:
    """Start one; the variable and the value that tell where it is."""
    service: NativeService
    if name == "kafka":
        service, bootstrap = native_kafka(reaper, may_install=required(), quick_start=False)
        found = ("SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS", bootstrap)
    elif name == "postgres":
        postgres = native_postgres(wheel_binaries(), reaper, durable=True)
        assert isinstance(postgres.service, NativeService)
        service = postgres.service
        found = ("SWITCHYARD_POSTGRES__DSN", postgres.dsn())
    else:
        service, url = native_redis(reaper)
        found = ("SWITCHYARD_REDIS__URL", url)
    service.start()
    return found


if __name__ == "__main__":
    sys.exit(main())
