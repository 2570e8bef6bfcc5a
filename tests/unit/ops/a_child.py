"""Stands for `ops.child`: `a_child.py NUMBER FOLDER MODE…`, a mode for each start; the last one stays.

Each start and each end it was asked for is a line in FOLDER/NUMBER.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    number, folder, *modes = sys.argv[1:]
    with open(os.path.join(folder, number), "a+") as book:
        book.seek(0)
        starts = book.read().count("started")
        print("started", os.getpid(), time.monotonic(), file=book, flush=True)
        mode = modes[min(starts, len(modes) - 1)]
        if mode == "misconfigured":
            print(json.dumps({"failed": "the topic is missing"}), flush=True)
            sys.exit(2)
        if mode == "dies":
            print(json.dumps({"failed": "PostgreSQL is away"}), flush=True)
            sys.exit(1)
        if mode == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        print(json.dumps({"ready": "lookup"}), flush=True)
        if os.read(0, 1) and mode == "works":
            print("drained", file=book, flush=True)
            sys.exit(0)
        while mode == "is stubborn":
            time.sleep(60)


main()
