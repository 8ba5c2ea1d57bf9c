"""The protocol of a benchmark's worker: a line names a case, an empty line asks for one turn, each answer is a line of JSON.

Each side of a comparison is a process that waits while another side works. The driver gives them turns, so that other jobs on
the machine slow all sides alike. This file imports only the standard library, because the peers' environments run it too.
"""

import json
import sys
import time

TURN = 0.15  # seconds that a turn should last


def serve(prepare) -> None:
    """Answer the lines of standard input. `prepare(case)` returns a function that works through `count` units of the case."""
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
