"""Fetches what the services need before any test's time limit runs: `python -m tests.services.prepare`."""

import sys

from tests.services.choice import required
from tests.services.containers import IMAGES, an_engine_answers, has_image
from tests.services.kafka import cached_jars, find_java
from tests.services.native import ServiceUnavailable


def main() -> str | None:
    """Fetch it; what stands in the way is the exit message."""
    if an_engine_answers() and all(has_image(image) for image in IMAGES):
        return None
    try:
        find_java(may_install=required())
        cached_jars(may_install=required())
    except ServiceUnavailable as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
