"""How a benchmark's worker talks: a line names a case, an empty line asks for a turn at it, and each answer is one line of JSON.

Both sides of a comparison are processes that wait while the other works; the driver gives them turns, so that whatever else
runs on the machine hits both alike. This file imports nothing beyond the standard library: the peers' environments read it too.
"""

import json
import sys
import time

TURN = 0.15  # seconds that a turn should last


def serve(prepare) -> None:
    """`prepare(case)` gives a function that works through `count` units of the case."""
    work, count = None, 1
    for line in sys.stdin:
        if line.strip():
            case = json.loads(line)
            work, count = prepare(case), case.get("least", 1)
            work(1)
            while (spent := max(_timed(work, count))) < TURN / 2:
                count = max(2 * count, int(count * TURN / max(spent, 1e-4) / 2))
            print(json.dumps("ready"), flush=True)
        else:
            processor, wall = _timed(work, count)
            print(json.dumps([processor / count, wall / count]), flush=True)


def _timed(work, count: int) -> tuple[float, float]:
    processor, wall = time.process_time(), time.perf_counter()
    work(count)
    return time.process_time() - processor, time.perf_counter() - wall
