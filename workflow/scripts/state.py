"""What a run's folder holds, against what a configuration asks for: `snakemake verify` and `snakemake status`.

Snakemake's graph of jobs tells the command of each; each result's record, which the job itself wrote
beside it (sns_core.record), says which command, code and inputs made it. Neither the dates of files nor `.snakemake`
count, so the answer is the same after a checkout, a copy or a clock set back.

    verify   reads every file and compares its checksum; exit status 1 unless everything is as the configuration asks
    status   a table of what is done, running, stale and missing, with the progress of what runs
"""

import argparse
import contextlib
import io
import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

PACKAGE = "sns_core"
ORDER = ("running", "killed", "damaged", "stale", "unrecorded", "missing", "done")


@dataclass
class Job:
    """One job of the workflow: its command, as argument -> words, its files, and what was found of it."""

    stage: str
    words: dict[str, list[str]]
    log: Path | None
    outputs: list[Path] = field(default_factory=list)
    inputs: list[Path] = field(default_factory=list)
    state: str = ""
    why: str = ""

    @property
    def code(self) -> str:
        return " ".join(self.words["code"])

    def arguments(self) -> dict[str, str]:
        """The arguments that determine a result, each as one word in a form that two spellings of a value share."""
        from sns_core.__main__ import COMMON

        return {n: plain(" ".join(w)) for n, w in self.words.items() if n not in COMMON}


def plain(text: str) -> str:
    """A word of the command line: JSON with sorted keys and numbers as numbers, anything else as it stands."""
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return text


def expected(snakefile: Path, configuration: Path, targets: list[str]) -> list[Job]:
    """The jobs that lead to the targets in the current folder, as the workflow would run them now."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        described = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[configuration]),
            snakefile=snakefile,
        )
        dag = described.dag(DAGSettings(targets=set(targets), forceall=True))
        with contextlib.redirect_stdout(io.StringIO()):
            dag.summary()  # builds the graph of jobs and takes no lock
        found = [job_of(job) for job in described._workflow.dag.jobs if job.is_shell]
    return sorted((job for job in found if job), key=lambda job: str(job.outputs[0]))


def job_of(job) -> Job | None:
    """A job of Snakemake's as we see it; None for one that runs no stage."""
    command = shlex.split(job.shellcmd)
    if PACKAGE not in command:
        return None
    stage, *own_words = command[command.index(PACKAGE) + 1 :]
    words: dict[str, list[str]] = {}
    for word in own_words:
        if word.startswith("--"):
            own = words.setdefault(word[2:].replace("-", "_"), [])
        else:
            own.append(word)
    log, outputs, inputs = ([Path(str(path)) for path in files] for files in (job.log, job.output, job.input))
    return Job(stage, words, log[0] if log else None, outputs, inputs)


def alive(marker: dict) -> bool:
    """Whether the process of a running marker is there; on another host nobody can tell, and it is believed."""
    if marker["host"] != platform.node():
        return True
    try:
        os.kill(marker["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def judge(job: Job, made_by: dict[Path, Job], thorough: bool) -> None:
    """Set the state of a job and why; those that it reads from are judged first."""
    from sns_core.files import sha256
    from sns_core.record import FORMAT, checksum, record_path, running_path

    if job.state:
        return
    job.state = "being judged"
    upstream = [made_by[path] for path in job.inputs if path in made_by]
    for other in upstream:
        judge(other, made_by, thorough)

    marker = next((m for m in (read(running_path(path)) for path in job.outputs) if m), None)
    if marker:
        job.state = "running" if alive(marker) else "killed"
        job.why = last_line(job.log) if job.state == "running" else "goes on with the next call"
        return
    absent = [path for path in job.outputs if not path.exists()]
    if absent:
        job.state, job.why = "missing", str(absent[0]) if absent[0] != job.outputs[0] else ""
        return
    record = read(record_path(job.outputs[0]))
    if not record or record.get("format") != FORMAT:
        job.state, job.why = "unrecorded", "no record says what made it"
        return
    job.why = differs(job, record) or next((why for why in map(changed, record["inputs"].items()) if why), "")
    if not job.why:
        broken = next((other for other in upstream if other.state not in ("done", "running")), None)
        job.why = f"{broken.outputs[0]}, which it reads, is {broken.state}" if broken else ""
    if job.why:
        job.state = "stale"
        return
    for path in job.outputs:
        known = (read(record_path(path)) or {}).get("outputs", {}).get(path.name)
        found = known and (sha256(path) if thorough else checksum(path))
        if known and found != known["sha256"]:
            job.state, job.why = "damaged", f"{path} is not what the job wrote (its checksum differs)"
            return
    job.state = "done"


def changed(item: tuple[str, str]) -> str:
    """Whether an input, with the checksum that the job saw, is there no more as it was."""
    from sns_core.record import checksum

    path, digest = Path(item[0]), item[1]
    if not path.exists():
        return f"{path}, which it was made from, is gone"
    return "" if checksum(path) == digest else f"{path} is not the file that it was made from"


def differs(job: Job, record: dict) -> str:
    """The first thing in which a record differs from the job that the configuration asks for."""
    if record["fingerprint"] != job.code:
        return f"the code of {job.stage} has changed"
    had = {n: plain(v if isinstance(v, str) else json.dumps(v)) for n, v in record["configuration"].items()}
    for name, value in job.arguments().items():
        told = had.get(name, "nothing")
        if normal(told) != normal(value):
            return f"--{name.replace('_', '-')} was {difference(told, value)}"
    return ""


def normal(text: str) -> str:
    """Lists of words and lists of JSON are the same here, and so are 40 and 40.0."""
    try:
        value = json.loads(text, parse_float=lambda word: int(float(word)) if float(word).is_integer() else float(word))
    except ValueError:
        return text
    return " ".join(map(str, value)) if isinstance(value, list) else json.dumps(value, sort_keys=True)


def difference(was: str, wanted: str) -> str:
    """Two values in words; of two mappings, the first key in which they differ."""
    try:
        one, other, place = json.loads(was), json.loads(wanted), ""
    except ValueError:
        return f"{was[:80]}, not {wanted[:80]}"
    while isinstance(one, dict) and isinstance(other, dict):
        key = next((k for k in sorted({*one, *other}) if one.get(k) != other.get(k)), None)
        if key is None:
            break
        one, other, place = one.get(key), other.get(key), f"{place}.{key}" if place else key
    return f"{json.dumps(one)[:80]}, not {json.dumps(other)[:80]}" + (f" ({place})" if place else "")


def last_line(log: Path | None) -> str:
    """The end of a log: where the job is, and how long it will take."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except (OSError, AttributeError):
        return ""
    return lines[-1].strip() if lines else "starting"


def listed_shards(jobs: list[Job]) -> str:
    """The first shard that does not hold what its manifest vouches for, with the reason; empty where all do."""
    from sns_core.data import load_dataset
    from sns_core.runtime import UserError

    for job in jobs:
        if job.stage == "shard_dataset" and job.state == "done":
            for split in ("train", "validation", "test"):
                try:
                    load_dataset(job.outputs[0], split)
                except UserError as error:
                    job.state, job.why = "damaged", str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("question", choices=["verify", "status"])
    parser.add_argument("--snakefile", type=Path, required=True)
    parser.add_argument("--configuration", type=Path, required=True, help="the whole configuration, as JSON in a file")
    parser.add_argument("--targets", nargs="+", default=["all"])
    given = parser.parse_args()
    jobs = expected(given.snakefile, given.configuration, given.targets)
    made_by = {path: job for job in jobs for path in job.outputs}
    for job in jobs:
        judge(job, made_by, thorough=given.question == "verify")
    if given.question == "verify":
        listed_shards(jobs)
    counts = {state: sum(job.state == state for job in jobs) for state in ORDER}
    shown = [job for job in jobs if given.question == "status" or job.state != "done"]
    for job in sorted(shown, key=lambda job: ORDER.index(job.state)):
        print(f"{job.state:11} {job.outputs[0]}" + (f": {job.why}" if job.why else ""))
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print(f"{len(jobs)} results of this configuration: {summary}")
    wrong = [job for job in jobs if job.state in ("damaged", "stale", "unrecorded")]
    if wrong and given.question == "verify":
        # A file that is there is not made again unless it is asked for: without .snakemake, Snakemake knows no better.
        print(f"make them again: snakemake --cores all --forcerun {' '.join(str(job.outputs[0]) for job in wrong)}")
    return int(given.question == "verify" and counts["done"] < len(jobs))


if __name__ == "__main__":
    sys.exit(main())
