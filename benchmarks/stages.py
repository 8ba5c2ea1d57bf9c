"""The wall time of a run by stage: jobs and seconds of each stage from the records of its results, beside the start-up.

    python benchmarks/stages.py results/demo                  # the table, for the run of that folder
    python benchmarks/stages.py results/demo --before table.md   # beside the seconds of an earlier table

A record counts the seconds after a job's imports. This script measures the start-up: a fresh interpreter imports the
modules of the stage, and the median of a few calls counts. A job that is shorter than its start-up is marked.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sns_core.stages import STAGES  # noqa: E402


def jobs(run: Path) -> dict[str, list[float]]:
    """Return stage -> seconds of each of its jobs, from the records in a run's folder: one per job, not one per file."""
    by_job: dict[tuple, tuple[str, float]] = {}
    for path in sorted(run.rglob("provenance/*.json")):
        record = json.loads(path.read_text())
        if record.get("format", "").startswith("sns-record"):
            job = record["stage"], json.dumps(record["configuration"], sort_keys=True)
            by_job[job] = record["stage"], record["wall_seconds"]
    seconds: dict[str, list[float]] = {}
    for stage, wall in by_job.values():
        seconds.setdefault(stage, []).append(wall)
    return {stage: seconds[stage] for stage in STAGES if stage in seconds}


def start_up(stage: str, turns: int) -> tuple[float, bool]:
    """Return the seconds until a stage begins, and whether it imports torch."""
    code = f"import importlib, sys; import sns_core.record, sns_core.__main__; importlib.import_module({STAGES[stage]!r}); "
    code += "print('torch' in sys.modules)"
    spent = []
    for _ in range(turns):
        tick = time.perf_counter()
        output = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        spent.append(time.perf_counter() - tick)
    return statistics.median(spent), output.strip() == "True"


def overhead(turns: int) -> float:
    """Return the seconds of a dry run of the default configuration: parsing and the graph of jobs."""
    spent = []
    for _ in range(turns):
        tick = time.perf_counter()
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", "--nolock", "--", "all"]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        spent.append(time.perf_counter() - tick)
    return statistics.median(spent)


def earlier(path: Path | None) -> dict[str, str]:
    """Return stage -> total seconds, from a table that this script wrote."""
    rows = re.findall(r"^\| `?(\w+)`? \| \d+ \| ([\d.]+) ", path.read_text(), re.M) if path else []
    return dict(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="a run's folder, results/<run>")
    parser.add_argument("--before", type=Path, help="an earlier table of this script, to compare with")
    parser.add_argument("--turns", type=int, default=5, help="calls; their median counts")
    parser.add_argument("--output", type=Path, help="also write the table there")
    arguments = parser.parse_args()
    by_stage, before = jobs(arguments.run), earlier(arguments.before)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    lines = [
        f"# Stages of the run {arguments.run.name}, {platform.machine()} {cpu}, {os.cpu_count()} cores, {datetime.date.today()}",
        "",
    ]
    lines += [
        f"Parsing and dry run: {overhead(arguments.turns):.2f} s. Load of the machine: {os.getloadavg()[0]:.1f}.",
        "",
    ]
    head = ["stage", "jobs", "seconds in all", "shortest", "longest", "start-up", "torch"] + ["before, in all"] * bool(
        before
    )
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    total = starting = 0.0
    for stage, seconds in by_stage.items():
        starts, torch = start_up(stage, arguments.turns)
        total, starting = total + sum(seconds), starting + starts * len(seconds)
        short = " (shorter than its start-up)" if min(seconds) < starts else ""
        row = [f"`{stage}`", str(len(seconds)), f"{sum(seconds):.1f}", f"{min(seconds):.2f}{short}", f"{max(seconds):.1f}",
               f"{starts:.2f}", "yes" if torch else "no"]  # fmt: skip
        lines.append(f"| {' | '.join(row + [before.get(stage, '')] * bool(before))} |")
    lines += ["", f"In all {total:.0f} s in {sum(map(len, by_stage.values()))} jobs, and {starting:.0f} s of start-up."]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
