"""The time that a run still takes, told from the time that it has taken: `snakemake --nolock status`.

Each job has an estimate of its seconds (plan.py). Finished jobs say how far the estimates are off on this machine: the
estimate of a job is multiplied by the ratio of measured to estimated seconds of its stage, or of all stages where none
of its own is finished. A job that prints the time it has left is believed.
"""

import graphlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

from sns_core.record import running_path
from sns_workflow.jobs import Job, modified, read_json_or_none, read_record, upstream_of

FINISHED = ("done",)
START = 1.5  # seconds in which a job's Python starts and imports, which its record leaves out
LEFT = re.compile(r"([\d.]+) min left")


@dataclass(frozen=True)
class TimeLeft:
    """`work`: seconds of all jobs that are not done, on one core; `chain`: of those that have to wait for each other;
    `jobs`: their number; `measured`: number of finished jobs that the estimate rests on."""

    work: float
    chain: float
    jobs: int
    measured: int

    def on(self, cores: int) -> float:
        """Return the seconds that are left on so many cores."""
        return max(self.chain, self.work / cores)


def time_left(jobs: list[Job], planned: list[float]) -> TimeLeft:
    """Return the time that jobs take which are not done. `planned`: the estimate of each job, in seconds."""
    measured = {index: record["wall_seconds"] + START for index, record in _records(jobs) if planned[index] > 0}
    stages = {job.stage for job in jobs}
    ratios = {stage: _ratio([i for i in measured if jobs[i].stage == stage], measured, planned) for stage in stages}
    overall = _ratio(list(measured), measured, planned) or 1.0
    seconds = []
    for job, estimate in zip(jobs, planned, strict=True):
        whole = estimate * (ratios[job.stage] or overall)
        seconds.append(0.0 if job.state in FINISHED else _rest(job, whole) if job.state == "running" else whole)
    unfinished = sum(job.state not in FINISHED for job in jobs)
    return TimeLeft(sum(seconds), _longest_chain(jobs, seconds), unfinished, len(measured))


def _records(jobs: list[Job]):
    """Yield (index, record) of each finished job whose record says how long it took."""
    for index, job in enumerate(jobs):
        record = read_record(job.outputs[0]) if job.state in FINISHED else None
        if record and isinstance(record.get("wall_seconds"), int | float):
            yield index, record


def _ratio(indices: list[int], measured: dict[int, float], planned: list[float]) -> float | None:
    """Return measured over planned seconds of some jobs; None without any."""
    total = sum(planned[index] for index in indices)
    return sum(measured[index] for index in indices) / total if total else None


def _rest(job: Job, whole: float) -> float:
    """Return the seconds that a running job has left: as it prints them, or what is over of its estimate."""
    if minutes := LEFT.findall(job.why):
        return 60 * float(minutes[-1])
    times = [began for path in job.outputs if (began := _began(running_path(path)))]
    return max(0.0, whole - (time.time() - min(times))) if times else whole


def _began(marker: Path) -> float | None:
    """Return the time at which a job began; None without a marker. A marker of an earlier version has the time of its file."""
    return (read_json_or_none(marker) or {}).get("began") or modified(marker)


def _longest_chain(jobs: list[Job], seconds: list[float]) -> float:
    """Return the largest sum of seconds along a chain of jobs in which each job reads what the one before makes."""
    upstream = upstream_of(jobs)
    ends: dict[int, float] = {}
    for index in graphlib.TopologicalSorter(upstream).static_order():
        ends[index] = seconds[index] + max((ends[n] for n in upstream[index]), default=0.0)
    return max(ends.values(), default=0.0)


def sentence(left: TimeLeft, cores: int, duration) -> str:
    """Return one line about the time left on so many cores; `duration`: seconds -> words."""
    basis = f"measured on {_counted(left.measured, 'job')}" if left.measured else "at the rates of `snakemake plan`"
    return (
        f"about {duration(left.on(cores))} left on {_counted(cores, 'core')} ({duration(left.work)} of one core in "
        f"{_counted(left.jobs, 'job')}, {duration(left.chain)} of them one after the other; {basis})"
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)
