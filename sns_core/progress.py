"""Progress lines of long loops."""

import sys
import time
from collections.abc import Iterator


def progress(total: int, label: str, start: int = 0, every: float = 10.0, aloud: float = 30.0) -> Iterator[int]:
    """Yield start .. total - 1, and print the rate and the remaining time on stderr every `every` seconds.

    On a terminal, each line replaces the line before. Where stderr goes to a file, as in a job of the workflow, a line
    is also printed on stdout every `aloud` seconds, so that a user who waits for the job can see it.
    """
    began = last = last_aloud = time.monotonic()
    for index in range(start, total):
        yield index
        now = time.monotonic()
        if now - last >= every:
            last = now
            rate = (index + 1 - start) / (now - began)
            minutes = (total - index - 1) / rate / 60
            line = f"{label}: {index + 1}/{total}, {rate:.1f} per second, {minutes:.1f} min left"
            print(line, file=sys.stderr, end="\r" if sys.stderr.isatty() else "\n", flush=True)
            if now - last_aloud >= aloud and not sys.stderr.isatty():
                last_aloud = now
                print(line, flush=True)
