"""Stands for `ops.supervised`: `a_post.py AGENT NUMBER LOCK FOLDER MODE…`, a mode for each start; the last one stays.

Each start, and each end it was asked for, is a line in FOLDER/AGENT-NUMBER.book.
"""

import os
import signal
import sys
import time


def main() -> None:
    agent, number, lock, folder, *modes = sys.argv[1:]
    with open(os.path.join(folder, f"{agent}-{number}.book"), "a+") as book:
        book.seek(0)
        mode = modes[min(book.read().count("started"), len(modes) - 1)]

        def asked(*_: object) -> None:
            print("asked", file=book, flush=True)
            if mode != "is stubborn":
                sys.exit(0)

        signal.signal(signal.SIGTERM, asked)
        os.pwrite(int(lock), str(os.getpid()).encode(), 0)
        print("started", os.getpid(), time.monotonic(), file=book, flush=True)
        if mode == "dies":
            sys.exit(1)
        while True:
            time.sleep(60)


main()
