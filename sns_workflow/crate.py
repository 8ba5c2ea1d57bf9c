"""A finished run as a Workflow Run RO-Crate: the metadata, in the profile Provenance Run Crate 0.5, from the records.

Each job is an action with its stage as the instrument, its settings and input files as objects and its output files as
results. The workflow's run is one more action.
https://www.researchobject.org/workflow-run-crate/profiles/provenance_run_crate
"""

import ast
import json
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from sns_core.stage_help import definition_of
from sns_core.stages import STAGES

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
FORMATS = {".nc": "application/x-netcdf", ".safetensors": "application/octet-stream", ".npy": "application/octet-stream",
           ".md": "text/markdown", ".yaml": "application/yaml", ".smk": "text/plain", ".rst": "text/x-rst"}  # fmt: skip
BIOSCHEMAS = "https://bioschemas.org/profiles"
SNAKEMAKE = "https://snakemake.github.io"
WORKFLOW, CONFIGURATION, PAGE = "workflow/Snakefile", "config.json", "README.md"
PAPER = "https://arxiv.org/abs/2603.17750"


@dataclass(frozen=True)
class Job:
    """One job of a run. `code`: fingerprint of its code.

    `inputs`, `outputs`: names below the run's folder -> sha256; an input may lie outside.
    """

    stage: str
    code: str
    settings: dict
    inputs: dict[str, str]
    outputs: dict[str, str]
    began: datetime
    ended: datetime

    @property
    def name(self) -> str:
        """The address of the job's action in the crate."""
        return f"#job-{self.stage}-{next(iter(self.outputs))}"


@dataclass(frozen=True)
class Publication:
    """The words about a run that no record holds."""

    title: str
    description: str
    license: str
    creators: tuple[str, ...]


def jobs_of(records: dict[str, dict], prefix: str) -> list[Job]:
    """Return the jobs of a run in the order in which they ended.

    `records`: name of a result -> its record; `prefix`: the run's folder as the jobs named it, such as results/demo.
    Files below it get their names below it; others keep their names.
    """
    jobs: dict[str, Job] = {}
    for result, record in records.items():
        folder = PurePosixPath(result).parent
        outputs = {str(folder / name): entry["sha256"] for name, entry in record["outputs"].items()}
        inputs = {_below(name, prefix): checksum for name, checksum in record["inputs"].items()}
        ended = max(entry["modified_ns"] for entry in record["outputs"].values()) / 1e9
        settings = {name: value for name, value in record["configuration"].items() if name not in ("output", "log")}
        times = (datetime.fromtimestamp(seconds, UTC) for seconds in (ended - record["wall_seconds"], ended))
        job = Job(record["stage"], record["fingerprint"], settings, inputs, outputs, *times)
        # Every output of a job has the same record. A file beside the outputs, such as a shard, stands in its own
        # alone.
        jobs.setdefault(job.name, job).outputs.update(outputs)
    return sorted(jobs.values(), key=lambda job: (job.ended, job.name))


def made_for(targets: tuple[str, ...], jobs: list[Job]) -> set[str]:
    """Return the targets and all files that their jobs, and the jobs before these, read and wrote."""
    makers, files, waiting = {name: job for job in jobs for name in job.outputs}, set(), list(targets)
    while waiting:
        name = waiting.pop()
        if name not in files:
            files.add(name)
            waiting += [*makers[name].inputs, *makers[name].outputs] if name in makers else []
    return files


def _below(name: str, prefix: str) -> str:
    path = PurePosixPath(name)
    return str(path.relative_to(prefix)) if path.is_relative_to(prefix) else name


def metadata_of(
    record: dict, jobs: list[Job], files: dict[str, dict], sources: dict[str, dict], publication: Publication
) -> dict:
    """Return the content of `ro-crate-metadata.json`.

    `record`: that of the run; `files`: name -> {"bytes", "sha256"} of the run's files in the crate; `sources`: the same
    of the workflow's own files, `workflow/Snakefile` among them.
    """
    entities = [
        *_root(publication, [*files, *sources], jobs),
        *_workflow(record, jobs),
        *_run(record, jobs, files),
        *(_file(name, entry) for name, entry in (files | sources).items() if name not in (WORKFLOW, CONFIGURATION)),
        *_left_out(jobs, files),
    ]
    return {"@context": CONTEXT, "@graph": entities}


def _reference(*names: str) -> dict | list[dict]:
    """Return references to entities: one alone is no list in an RO-Crate."""
    references = [{"@id": name} for name in names]
    return references[0] if len(references) == 1 else references


def _file(name: str, entry: dict) -> dict:
    kind = FORMATS.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return {
        "@id": name,
        "@type": "File",
        "name": PurePosixPath(name).name,
        "contentSize": str(entry["bytes"]),
        "encodingFormat": kind,
        "sha256": entry["sha256"],
        **({"about": {"@id": "./"}} if name == PAGE else {}),
    }


def _root(publication: Publication, names: list[str], jobs: list[Job]) -> Iterator[dict]:
    """Yield the crate itself, its descriptor, its profiles, its licence and its creators."""
    licence = f"https://spdx.org/licenses/{publication.license}"
    yield {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": _reference("https://w3id.org/ro/crate/1.1", "https://w3id.org/workflowhub/workflow-ro-crate/1.0"),
        "about": {"@id": "./"},
    }
    creators = [f"#creator-{number}" for number in range(len(publication.creators))]
    yield {
        "@id": "./",
        "@type": "Dataset",
        "name": publication.title,
        "description": publication.description,
        "datePublished": max(job.ended for job in jobs).isoformat(timespec="seconds"),
        "license": {"@id": licence},
        "author": _reference(*creators),
        "conformsTo": _reference(*PROFILES),
        "mainEntity": {"@id": WORKFLOW},
        "mentions": _reference("#run", "#organised-by-snakemake", *(job.name for job in jobs)),
        "citation": {"@id": PAPER},
        "hasPart": _reference(*names),
    }
    for address, name in PROFILES.items():
        yield {"@id": address, "@type": "CreativeWork", "name": name, "version": address.rpartition("/")[2]}
    yield {"@id": licence, "@type": "CreativeWork", "name": publication.license, "description": "SPDX licence"}
    yield {
        "@id": PAPER,
        "@type": "ScholarlyArticle",
        "name": "Towards Infinitely Long Neural Simulations: Self-Refining Neural Surrogate Models for Dynamical Systems",
    }
    for address, name in zip(creators, publication.creators, strict=True):
        yield {"@id": address, "@type": "Person", "name": name}


def _workflow(record: dict, jobs: list[Job]) -> Iterator[dict]:
    """Yield the workflow, its language, its parameter, its steps and the stages that the steps call."""
    stages = [stage for stage in STAGES if any(job.stage == stage for job in jobs)]
    steps = [f"#step-{stage}" for stage in stages]
    commits = [
        f"{code['commit']} with uncommitted changes" if code["dirty"] else code["commit"]
        for code in record["code_of_results"]
    ]
    yield {
        "@id": WORKFLOW,
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": "SNS: self-refining neural surrogates, from the solver to the report",
        "encodingFormat": "text/plain",
        "conformsTo": {"@id": f"{BIOSCHEMAS}/ComputationalWorkflow/1.0-RELEASE"},
        "programmingLanguage": {"@id": "#snakemake"},
        "version": ", ".join(commits),
        "license": "https://spdx.org/licenses/MIT",
        "input": _reference("#configuration"),
        "step": _reference(*steps),
        "hasPart": _reference(*(f"#stage-{stage}" for stage in stages)),
    }
    yield {
        "@id": "#snakemake",
        "@type": ["ComputerLanguage", "SoftwareApplication"],
        "name": "Snakemake",
        "url": {"@id": SNAKEMAKE},
        "identifier": {"@id": SNAKEMAKE},
        **({"version": record["versions"]["snakemake"]} if "snakemake" in record["versions"] else {}),
    }
    yield {"@id": SNAKEMAKE, "@type": "WebSite", "name": "Snakemake"}
    yield {
        "@id": "#configuration",
        "@type": "FormalParameter",
        "additionalType": "File",
        "conformsTo": {"@id": f"{BIOSCHEMAS}/FormalParameter/1.0-RELEASE"},
        "name": "configuration",
        "description": "The configuration of the run, for Snakemake's --configfile.",
        "encodingFormat": "application/json",
        "workExample": {"@id": CONFIGURATION},
    }
    for position, stage in enumerate(stages):
        summary = ast.get_docstring(definition_of(stage)).partition("\n\n")[0]
        yield {
            "@id": f"#step-{stage}",
            "@type": "HowToStep",
            "name": stage,
            "position": str(position),
            "workExample": {"@id": f"#stage-{stage}"},
        }
        yield {
            "@id": f"#stage-{stage}",
            "@type": "SoftwareApplication",
            "name": f"python -m sns_core {stage}",
            "description": summary,
            "softwareVersion": record["versions"].get("sns-core", "unknown"),
        }


def _run(record: dict, jobs: list[Job], files: dict[str, dict]) -> Iterator[dict]:
    """Yield the run as one action, each job as an action, and Snakemake's control of the jobs."""
    began, ended = min(job.began for job in jobs), max(job.ended for job in jobs)
    made = [name for job in jobs for name in job.outputs if name in files]
    yield _file(CONFIGURATION, files[CONFIGURATION]) | {"exampleOfWork": {"@id": "#configuration"}}
    yield {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run {record['configuration'].get('run', '')}, seed {record['seed']}",
        "description": "All jobs of the run, those included that an earlier call of Snakemake had made.",
        "instrument": {"@id": WORKFLOW},
        "object": _reference(CONFIGURATION),
        "result": _reference(*made),
        "actionStatus": "http://schema.org/CompletedActionStatus",
        **_times(began, ended),
    }
    yield {
        "@id": "#organised-by-snakemake",
        "@type": "OrganizeAction",
        "name": "Snakemake's run of the workflow",
        "instrument": {"@id": "#snakemake"},
        "object": _reference(*(f"#control-{job.name[1:]}" for job in jobs)),
        "result": {"@id": "#run"},
        **_times(began, ended),
    }
    for job in jobs:
        settings = f"#settings-{job.name[1:]}"
        yield {
            "@id": f"#control-{job.name[1:]}",
            "@type": "ControlAction",
            "name": f"Snakemake starts {job.stage}",
            "instrument": {"@id": f"#step-{job.stage}"},
            "object": {"@id": job.name},
        }
        yield {
            "@id": job.name,
            "@type": "CreateAction",
            "name": f"{job.stage} of {next(iter(job.outputs))}",
            "description": f"One job, by the code with the fingerprint {job.code}.",
            "instrument": {"@id": f"#stage-{job.stage}"},
            "object": _reference(settings, *(_address(name, files) for name in job.inputs)),
            "result": _reference(*(_address(name, files) for name in job.outputs)),
            "actionStatus": "http://schema.org/CompletedActionStatus",
            **_times(job.began, job.ended),
        }
        yield {
            "@id": settings,
            "@type": "PropertyValue",
            "name": "settings",
            "value": json.dumps(job.settings, sort_keys=True),
        }


def _times(began: datetime, ended: datetime) -> dict:
    return {"startTime": began.isoformat(timespec="seconds"), "endTime": ended.isoformat(timespec="seconds")}


def _address(name: str, files: dict[str, dict]) -> str:
    return name if name in files else f"#not-in-this-package/{name}"


def _left_out(jobs: list[Job], files: dict[str, dict]) -> Iterator[dict]:
    """Yield the files that a job read or wrote and that the crate does not hold, by their checksums."""
    checksums = {name: checksum for job in jobs for name, checksum in (job.inputs | job.outputs).items()}
    for name, checksum in checksums.items():
        if name not in files:
            yield {
                "@id": _address(name, files),
                "@type": "CreativeWork",
                "name": name,
                "description": "A file that is not in this package.",
                "identifier": f"sha256:{checksum}",
            }
