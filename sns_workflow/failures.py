"""What the end of a call says about the jobs that failed; the default profile suppresses Snakemake's own words about jobs."""

from collections.abc import Iterable
from pathlib import Path

LINES = 12  # of a log
REPORTED = ("verify", "status")  # rules whose log has been on the terminal
KILLED = "its log is empty: it was killed, perhaps for want of memory or time"


def describe_failures(jobs: Iterable) -> str:
    """Return rule, outputs and the end of the log of each failed job, and the way out."""
    failed = sorted((job for job in jobs if job.rule.name not in REPORTED), key=lambda job: str(job.output))
    if not failed:
        return ""
    lines = [f"\n{job.rule.name} failed to make {', '.join(map(str, job.output))}\n{_end(job.log)}" for job in failed]
    return "\n".join([*lines, "\nOnce the cause is mended, the same call again goes on from what is done."])


def _end(logs: Iterable) -> str:
    """Return the last lines of a job's log."""
    for path in map(Path, logs):
        lines = path.read_text(errors="replace").replace("\r", "\n").splitlines() if path.exists() else []
        if lines:
            return "\n".join([f"the end of {path}:", *(f"    {line}" for line in lines[-LINES:])])
    return KILLED
