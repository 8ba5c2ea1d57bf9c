"""The closing lines of a call about jobs that failed or were stopped. They replace Snakemake's own lines."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from sns_core.stages import STAGES

LINES = 12  # of a log
KILLED = "it was killed, perhaps for want of memory or time"


def stop_with_the_terminal() -> None:
    """Let a terminal that closes stop a call as Ctrl-C does, so that its folder does not stay locked.

    A call that ignores the signal, as under nohup, goes on ignoring it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere Python refuses handlers
    if in_main_thread and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


class HideCommands(logging.Filter):
    """A filter for Snakemake's log, which drops the commands of failed stages, and of a `verify` that found something.

    They say nothing about the failure.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        ours = " sns_core " in message or " -m sns_workflow." in message
        return not (message.startswith("RuleException:\nCalledProcessError") and ours)


def print_end(scheduler) -> None:
    """Print the closing lines of a call that did not succeed; nothing where its terminal has closed."""
    if scheduler:
        with contextlib.suppress(OSError):
            print(describe_end(scheduler.failed, scheduler.running), file=sys.stderr, flush=True)


def describe_end(failed: Iterable, running: Iterable) -> str:
    """Return the closing lines of a call that did not succeed, about jobs that failed or else were stopped."""
    return describe_failures(failed) or describe_stop(running)


def describe_failures(jobs: Iterable) -> str:
    """Return rule, outputs and the end of the log of each failed job, and the way out; empty without such a job."""
    # Rules that make no file, such as `verify`, have printed their log.
    failed = sorted((job for job in jobs if job.output), key=lambda job: str(job.output))
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
    """Return the last lines of a job's log.

    A stage that fails says so in a line that begins with its name. A job that is killed cannot.
    """
    for path in map(Path, logs):
        lines = path.read_text(errors="replace").replace("\r", "\n").splitlines()[-LINES:] if path.exists() else []
        if lines:
            explained = any(line.partition(": ")[0] in STAGES for line in lines)
            way_out = [] if explained else [f"no line of the log says why it ended: {KILLED}"]
            return "\n".join([f"the end of {path}:", *(f"    {line}" for line in lines), *way_out])
    return f"its log is empty: {KILLED}"
