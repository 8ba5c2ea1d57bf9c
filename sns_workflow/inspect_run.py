"""Hold what the folder of a run or sweep holds against what a configuration asks for: `snakemake verify` and `status`.

Snakemake's graph of jobs gives the arguments of each job. The record that a job wrote beside its result
(sns_core.record) says which arguments, code and inputs made it. Neither the dates of files nor `.snakemake` count, so
the answer is the same after a checkout, a copy or a clock set back.

    verify     reads every file and compares its checksum; exit status 1 unless everything is as the configuration asks
    status     a table of what is done, running, stale and missing, with the progress of what runs and the time left; of a
               sweep a line per point, and the results that are neither done nor missing
    progress   the same without the table, and a page of what is there so far
"""

import argparse
import functools
import gc
import graphlib
import json
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sns_core.arguments import COMMON
from sns_core.files import checksum, recorded_entry, sha256
from sns_core.record import TOUCHED_EVERY, process_start, running_path
from sns_workflow.jobs import STATES, Job, expected_jobs, modified, read_json_or_none, read_record, upstream_of
from sns_workflow.sweep import described_runs

SILENCE = 15 * TOUCHED_EVERY  # seconds after which a job on another host that shows no sign of life is dead


def alive(path: Path, marker: dict) -> bool:
    """Whether the job of a running marker lives; `path`: of the marker.

    Here its process is looked for. The process of another host cannot be seen: its job is alive while it touches its
    marker, and a marker of an earlier version, which was never touched, is believed.
    """
    if marker["host"] != platform.node():
        touched = modified(path)
        return "began" not in marker or touched is None or time.time() - touched < SILENCE
    try:
        os.kill(marker["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return marker.get("process_start") in (None, process_start(marker["pid"]))


def judge_all(jobs: list[Job], thorough: bool) -> None:
    """Set the state of each job and the reason of the state; `thorough`: read every file again."""
    digest = functools.cache(sha256 if thorough else checksum)  # most files are an input of many jobs
    upstream = upstream_of(jobs)
    for index in graphlib.TopologicalSorter(upstream).static_order():
        judge(jobs[index], [jobs[n] for n in sorted(upstream[index])], digest)


def judge(job: Job, upstream: list[Job], digest: Callable[[Path], str] = sha256) -> None:
    """Set the state of a job and its reason. The jobs `upstream`, whose results it reads, have been judged before.

    `digest`: path -> sha256 of a file.
    """
    markers = {path: read_json_or_none(path) for path in map(running_path, job.outputs)}
    path, marker = next(((path, marker) for path, marker in markers.items() if marker), (None, None))
    if marker:
        job.state = "running" if alive(path, marker) else "killed"
        job.why = last_line(job.log) if job.state == "running" else "goes on with the next call"
        return
    if absent := absent_of(job):
        job.state, job.why = "missing", str(absent[0]) if absent[0] != job.outputs[0] else ""
        return
    record = read_record(job.outputs[0])
    if record is None:
        job.state, job.why = "unrecorded", "no record says what made it"
        return
    # What a missing file held is not known before it is made again. It may be the same, so what was made from it may
    # stand.
    absent = {str(path) for source in upstream if source.state == "missing" for path in absent_of(source)}
    broken = next((source for source in upstream if source.state not in ("done", "running", "missing")), None)
    of_upstream = f"{broken.outputs[0]}, which it reads, is {broken.state}" if broken else ""
    inputs = {path: checksum for path, checksum in record["inputs"].items() if path not in absent}
    job.why = differs(job, record) or of_upstream or changed(inputs, digest)
    if job.why:
        job.state = "stale"
        return
    for path in job.outputs:
        written = recorded_entry(path)
        if written and written["sha256"] != digest(path):
            job.state, job.why = "damaged", f"{path} is not what the job wrote (its checksum differs)"
            return
    job.state = "done"


def absent_of(job: Job) -> list[Path]:
    """Return the outputs of a job that do not exist."""
    return [path for path in job.outputs if not path.exists()]


def to_make(jobs: list[Job]) -> list[Path]:
    """Return a missing file of each job that must be asked for: the others are made because one of these reads them."""
    missing = [job for job in jobs if job.state == "missing"]
    read = {path for job in missing for path in job.inputs}
    return [absent_of(job)[0] for job in missing if not read & set(job.outputs)]


def changed(inputs: dict[str, str], digest: Callable[[Path], str]) -> str:
    """Return the first change in inputs, path -> checksum that the job saw; empty where nothing has changed."""
    for path, recorded in inputs.items():
        if not os.path.exists(path):
            return f"{path}, which it was made from, is gone"
        if digest(Path(path)) != recorded:
            return f"{path} is not the file that it was made from"
    return ""


def differs(job: Job, record: dict) -> str:
    """Return the first thing in which a record differs from the job that the configuration asks for."""
    if record["fingerprint"] != job.code:
        return f"the code of {job.stage} has changed"
    recorded = {name: value for name, value in record["configuration"].items() if name not in COMMON}
    for name in {**job.arguments, **recorded}:
        before, now = (arguments.get(name) for arguments in (recorded, job.arguments))
        if json.dumps(before) != json.dumps(now):
            return f"--{name.replace('_', '-')} was {difference(before, now)}"
    return ""


def difference(before, now) -> str:
    """Return two values in words; of two mappings, the first key in which they differ."""
    place = []
    while isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in sorted({*before, *now}) if json.dumps(before.get(key)) != json.dumps(now.get(key))]
        if not keys:
            return f"in the order {', '.join(before)}, not {', '.join(now)}"
        place.append(keys[0])
        before, now = before.get(keys[0]), now.get(keys[0])
    words = ("nothing" if value is None else json.dumps(value)[:80] for value in (before, now))
    return ", not ".join(words) + (f" ({'.'.join(place)})" if place else "")


def last_line(log: Path | None) -> str:
    """Return the last line of a log, which says where the job is and how long it will take."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except (OSError, AttributeError):
        return ""
    return lines[-1].strip() if lines else "starting"


def check_shards(jobs: list[Job]) -> None:
    """Judge a data set as damaged where a shard does not hold what its manifest vouches for."""
    from sns_core.data.shards import open_shards
    from sns_core.errors import UserError

    for job in jobs:
        if job.stage == "shard_dataset" and job.state == "done":
            for split in ("train", "validation", "test"):
                try:
                    open_shards(job.outputs[0], split, thorough=True)
                except UserError as error:
                    job.state, job.why = "damaged", str(error)


def estimate_time_left(config: dict, jobs: list[Job], cores: int) -> str:
    """Return one line about the time that is left. The estimates count operations with torch, which takes seconds."""
    from sns_workflow.plan import estimate_all, rough_duration
    from sns_workflow.time_left import sentence, time_left

    device = config["hardware"]["device"]
    on_gpu = device.startswith("cuda") or (device == "auto" and shutil.which("nvidia-smi") is not None)
    planned = [estimate.seconds("gpu" if on_gpu else "core") for _, estimate in estimate_all(config, jobs)]
    return sentence(time_left(jobs, planned), cores, rough_duration)


def print_states(jobs: list[Job], shown: list[Job]) -> str:
    """Print a line per job in `shown` and the count of each state among all `jobs`; return the counts as one line."""
    for job in sorted(shown, key=lambda job: STATES.index(job.state)):
        print(f"{job.state:11} {job.outputs[0]}" + (f": {job.why}" if job.why else ""))
    summary = count_states(jobs)
    print(f"{len(jobs)} results of this configuration: {summary}", flush=True)
    return summary


def count_states(jobs: list[Job]) -> str:
    """Return the count of each state among jobs as one line."""
    counts = Counter(job.state for job in jobs)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def print_points(runs: list[dict], jobs: list[Job]) -> None:
    """Print a line per run of a sweep: how many of its results there are, and in which states."""
    of_point: dict[Path, list[Job]] = {Path(run["results"], run["run"]): [] for run in runs}
    for job in jobs:
        for folder in of_point.keys() & set(job.outputs[0].parents):
            of_point[folder].append(job)
    width = max(len(folder.name) for folder in of_point)
    for folder, mine in of_point.items():
        print(f"{folder.name:{width}}  {len(mine)} results: {count_states(mine)}")


def print_ways_out(jobs: list[Job]) -> None:
    """Print the calls that make again what `verify` found missing or wrong.

    The calls name files, because Snakemake leaves two kinds of them alone unless it is asked: a missing file whose
    results are there, and, without .snakemake, a file that is there and wrong. Without the options of this call they
    would ask for another configuration.
    """
    if missing := to_make(jobs):
        print(f"make what is missing: snakemake --cores all -- {' '.join(map(str, missing))}; then verify again")
    wrong = [str(job.outputs[0]) for job in jobs if job.state in ("damaged", "stale", "unrecorded")]
    if wrong:
        print(f"make them again: snakemake --cores all --forcerun {' '.join(wrong)}")
    if missing or wrong:
        print("with the -s, --configfile and --config of this call, if it has any")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("question", choices=["verify", "status", "progress"])
    parser.add_argument("--snakefile", required=True)
    parser.add_argument("--configuration", type=Path, required=True, help="the whole configuration, as JSON in a file")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores for which the time left is told")
    arguments = parser.parse_args()
    question, config = arguments.question, json.loads(arguments.configuration.read_text())
    jobs = expected_jobs(arguments.snakefile, config)
    judge_all(jobs, thorough=question == "verify")
    if question == "verify":
        check_shards(jobs)
    unfinished = [job for job in jobs if job.state != "done"]
    shown = {"verify": unfinished, "status": jobs, "progress": []}[question]
    if question == "status" and "sweep" in config:
        print_points(described_runs(config), jobs)
        shown = [job for job in unfinished if job.state != "missing"]
    summary = print_states(jobs, shown)
    if question == "verify":
        print_ways_out(jobs)
        return int(bool(unfinished))
    left = estimate_time_left(config, jobs, arguments.cores) if unfinished else "nothing is left"
    print(left)
    if question == "progress":
        from sns_workflow.progress_page import write_page

        print(f"page: {write_page(Path(config['results'], config['run']), config, jobs, summary, left)}")
    return 0


if __name__ == "__main__":
    gc.disable()  # the search for cycles would take a sixth of the two seconds of this process
    sys.exit(main())
