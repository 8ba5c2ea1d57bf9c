"""The closing lines of a call about jobs that failed or were stopped. They replace Snakemake's own lines."""

import logging
from collections.abc import Iterable
from pathlib import Path

LINES = 12  # of a log
REPORTED = ("verify", "status", "progress", "plan")  # rules whose log has been on the terminal
KILLED = "its log is empty: it was killed, perhaps for want of memory or time"


class HideCommands(logging.Filter):
    """A filter for Snakemake's log, which drops the commands of failed stages: they say nothing about the failure."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message.startswith("RuleException:\nCalledProcessError") and " sns_core " in message)


def describe_end(failed: Iterable, running: Iterable) -> str:
    """Return the closing lines of a call that did not succeed, about jobs that failed or else were stopped."""
    return describe_failures(failed) or describe_stop(running)


def describe_failures(jobs: Iterable) -> str:
    """Return rule, outputs and the end of the log of each failed job, and the way out; empty without such a job."""
    failed = sorted((job for job in jobs if job.rule.name not in REPORTED), key=lambda job: str(job.output))
    if not failed:
        return ""
    lines = [f"\n{job.rule.name} failed to make {', '.join(map(str, job.output))}\n{_end(job.log)}" for job in failed]
    return "\n".join([*lines, "\nOnce the cause is mended, the same call again goes on from what is done."])


def describe_stop(jobs: Iterable) -> str:
    """Return one line about the jobs that were running when a call was stopped; empty without such a job."""
    stopped = sorted(f"{job.rule.name} of {next(iter(job.output), 'nothing')}" for job in jobs)
    if not stopped:
        return ""
    return f"Stopped: {', '.join(stopped)}. The same call again goes on from what is done."


def _end(logs: Iterable) -> str:
    """Return the last lines of a job's log."""
    for path in map(Path, logs):
        lines = path.read_text(errors="replace").replace("\r", "\n").splitlines() if path.exists() else []
        if lines:
            return "\n".join([f"the end of {path}:", *(f"    {line}" for line in lines[-LINES:])])
    return KILLED
