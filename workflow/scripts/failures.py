"""What is said at the end of a call in which jobs failed; the default profile keeps Snakemake's own words about jobs back."""

from collections.abc import Iterable
from pathlib import Path

LINES = 12  # of a log
SPOKEN = ("verify", "status")  # rules whose log has been on the terminal


def told(jobs: Iterable) -> str:
    """Rule, outputs and the end of the log of each failed job, and the way out."""
    failed = sorted((job for job in jobs if job.rule.name not in SPOKEN), key=lambda job: str(job.output))
    if not failed:
        return ""
    said = [f"\n{job.rule.name} failed to make {', '.join(map(str, job.output))}\n{_end(job.log)}" for job in failed]
    return "\n".join([*said, "\nOnce the cause is mended, the same call again goes on from what is done."])


def _end(logs: Iterable) -> str:
    """The last lines of a job's log; without any, the job was ended from outside."""
    for path in map(Path, logs):
        lines = path.read_text(errors="replace").replace("\r", "\n").splitlines() if path.exists() else []
        if lines:
            return "\n".join([f"the end of {path}:", *(f"    {line}" for line in lines[-LINES:])])
    return "it has left no word in its log: killed, perhaps for want of memory or time"
