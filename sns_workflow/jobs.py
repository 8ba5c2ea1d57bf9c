"""The jobs of a run as the workflow would run them now, and the records that earlier jobs wrote beside their results.

Snakemake's graph of jobs gives the arguments and files of each job. Three modules ask more of these jobs: `inspect_run`
compares them with the run's folder, `plan` estimates what they take, and `time_left` what they still take.
"""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sns_core.files import record_path
from sns_core.record import FORMAT
from sns_core.stages import STAGES
from sns_workflow.command import arguments_of

STATES = ("running", "killed", "damaged", "stale", "unrecorded", "missing", "done")  # in the order of reports


@dataclass
class Job:
    """One job of the workflow.

    `stage`, `arguments`: the stage and the arguments that determine its result; `code`: the fingerprint of its code;
    `log`, `outputs`, `inputs`: its files; `state`: one of STATES, empty before the job is judged; `why`: the reason of
    the state in words, or the last line of the log of a running job.
    """

    stage: str
    arguments: dict
    code: str
    log: Path | None = None
    outputs: list[Path] = field(default_factory=list)
    inputs: list[Path] = field(default_factory=list)
    state: str = ""
    why: str = ""


def expected_jobs(snakefile: str, config: dict, targets: Sequence[str] = ()) -> list[Job]:
    """Return the jobs that lead to the targets, or to the default target, in the current folder, by their first output."""
    with graph_of_jobs(snakefile, config, targets, forceall=True) as graph:
        jobs = [job_of(job) for job in graph.jobs]
    return sorted((job for job in jobs if job), key=lambda job: str(job.outputs[0]))


@contextlib.contextmanager
def graph_of_jobs(snakefile: str, config: dict, targets: Sequence[str] = (), forceall: bool = False):
    """Yield Snakemake's graph of jobs for a whole configuration. Nothing is locked, written or printed."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config=config),
            snakefile=Path(snakefile),
        )
        graph = workflow.dag(DAGSettings(targets=set(targets), forceall=forceall))
        with contextlib.redirect_stdout(io.StringIO()):
            graph.summary()  # the only public call that builds the graph and takes no lock
        yield workflow._workflow.dag


def job_of(job) -> Job | None:
    """Return a job of Snakemake's as a Job; None for one that runs no stage."""
    stage = stage_of(job.rule.name)
    if stage is None:
        return None
    arguments = json.loads(job.params.settings)
    for argument in arguments_of(stage):
        if argument.directive != "settings":
            files = getattr(job.output if argument.directive == "output" else job.input, argument.name)
            paths = [str(Path(path)) for path in ([files] if isinstance(files, str) else files)]
            if argument.annotation.startswith("list"):
                arguments[argument.name] = paths
            elif paths:
                arguments[argument.name] = paths[0]
    log, outputs, inputs = ([Path(str(path)) for path in files] for files in (job.log, job.output, job.input))
    return Job(stage, arguments, job.params.code, log[0] if log else None, outputs, inputs)


def stage_of(rule: str) -> str | None:
    """Return the stage of a rule, which may have a prefix, as the rules of a point of a sweep have; None without one."""
    return max((name for name in STAGES if f"_{rule}".endswith(f"_{name}")), key=len, default=None)


def upstream_of(jobs: list[Job]) -> dict[int, set[int]]:
    """Return position of a job -> positions of the jobs whose outputs it reads, the form that `graphlib` sorts."""
    made_by = {path: index for index, job in enumerate(jobs) for path in job.outputs}
    return {index: {made_by[path] for path in job.inputs if path in made_by} for index, job in enumerate(jobs)}


def read_json_or_none(path: Path) -> dict | None:
    """Return the JSON in a file; None where there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def modified(path: Path) -> float | None:
    """Return the time at which a file was last changed; None for a file that a job has just removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def read_record(path: Path) -> dict | None:
    """Return the record of a result; None without a whole one."""
    record = read_json_or_none(record_path(path))
    kinds = {"fingerprint": str, "configuration": dict, "inputs": dict, "outputs": dict}
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return None
    return record if all(isinstance(record.get(key), kind) for key, kind in kinds.items()) else None
