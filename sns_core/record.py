"""The record beside each result: `provenance/<name>.json` says what made the file `<name>`, and from what.

A record holds the stage and its arguments (the slice of the configuration, the seed), a fingerprint of the code, commit,
versions, host and wall time, and the checksums of every file that went in and came out. It is written by the job, not by
Snakemake, so what a folder holds can be held against a configuration wherever it is found (`snakemake verify`).
"""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from sns_core.files import provenance, read_json, sha256, write_json

FORMAT = "sns-record-1"
RUN_FORMAT = "sns-provenance-1"
WRITTEN = ("history", "restart")  # arguments that name a file to be written, as those do that begin with "output"


def record_path(result: Path) -> Path:
    """Where the record of a result lies."""
    return Path(result).parent / "provenance" / f"{Path(result).name}.json"


def running_path(result: Path) -> Path:
    """Where a job says that it is at work on a result."""
    return Path(result).parent / "provenance" / f"{Path(result).name}.running"


def as_told(value):
    """An argument as JSON holds it."""
    if isinstance(value, dict):
        return {key: as_told(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_told(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def outputs_of(arguments: dict) -> list[Path]:
    """Files that a stage writes: single paths under such a name (a list under one of them goes in)."""
    named = {name for name in arguments if name.startswith("output")}.union(WRITTEN)
    return [path for name, path in arguments.items() if name in named and isinstance(path, Path)]


def inputs_of(arguments: dict) -> list[Path]:
    """Files that a stage reads, those named inside dicts and lists included, in order and once."""
    written, found = set(map(str, outputs_of(arguments))), {}

    def visit(value):
        if isinstance(value, dict | list | tuple):
            for inner in value.values() if isinstance(value, dict) else value:
                visit(inner)
        elif isinstance(value, Path | str) and 0 < len(str(value)) < 4096 and str(value) not in written:
            found.setdefault(Path(value)) if os.path.isfile(value) else None  # False for texts, too

    visit(arguments)
    return list(found)


def _described(path: Path) -> dict:
    status = path.stat()
    return {"sha256": sha256(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def checksum(path: Path) -> str:
    """sha256 of a file; taken from its record where size and time are still those that the record saw."""
    try:
        known = json.loads(record_path(path).read_text())["outputs"][path.name]
        status = path.stat()
        if (known["bytes"], known["modified_ns"]) == (status.st_size, status.st_mtime_ns):
            return known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return sha256(path)


@contextlib.contextmanager
def recorded(stage: str, arguments: dict, code: str, log: Path | None, clock) -> Iterator[None]:
    """Run a stage in this block: its outputs are marked as being made, and get their records when it ends well."""
    outputs = outputs_of(arguments)
    marker = {"pid": os.getpid(), "host": platform.node(), "log": str(log) if log else None}
    for path in outputs:
        write_json(running_path(path), marker)
    began = clock()
    try:
        yield
        device = "cpu"
        if "device" in arguments:
            from sns_core.runtime import select_device  # whoever is told a device has loaded torch before

            device = select_device(arguments["device"])
        record = provenance(as_told(arguments), arguments.get("seed"), str(device))
        record |= {
            "format": FORMAT, "stage": stage, "fingerprint": code, "wall_seconds": clock() - began,
            "inputs": {str(path): checksum(path) for path in inputs_of(arguments)},
            "outputs": {path.name: _described(path) for path in outputs},
        }  # fmt: skip
        for path in outputs:
            write_json(record_path(path), record, sort_keys=False)  # the order of methods is part of what made a table
    finally:
        for path in outputs:
            running_path(path).unlink(missing_ok=True)


def record_provenance(*, configuration: dict, systems: dict, seed: int, output: Path) -> None:
    """Write what made a run: its configuration, code, host, data and models, and the seconds that each job took.

    `systems`: system -> {"manifest": file, "data": {split: [files]}, "models": {name: file}, "segments": {method: [files]}}.
    """
    commits, devices, described = set(), set(), {}
    for system, files in systems.items():
        manifest = read_json(files["manifest"])
        jobs, models = [], {}
        for split, paths in files["data"].items():
            jobs.append(("simulate_trajectories", split, [_attribute(path) for path in paths]))
        for model, path in files["models"].items():
            note = read_json(Path(path).with_suffix(".json"))
            jobs.append(("train_model", model, [note["provenance"]]))
            models[model] = {"sha256": sha256(path), "data": note["data"]}
        for method, paths in files["segments"].items():
            jobs.append(("rollout_segment", method, [_attribute(path) for path in paths]))
        for _, _, records in jobs:
            commits |= {json.dumps(record["code"], sort_keys=True) for record in records}
            devices |= {record["device"] for record in records}
        described[system] = {
            "data": manifest["identity"],
            "models": models,
            "wall_seconds": [
                {
                    "stage": stage,
                    "item": item,
                    "files": len(records),
                    "seconds": sum(r["wall_seconds"] for r in records),
                }
                for stage, item, records in jobs
            ],
        }
    record = provenance(configuration, seed, ", ".join(sorted(devices)))
    record |= {"format": RUN_FORMAT, "systems": described, "code_of_results": [json.loads(c) for c in sorted(commits)]}
    write_json(output, record)


def _attribute(path) -> dict:
    """The record that a netCDF file carries of what made it."""
    import xarray as xr

    with xr.open_dataset(path) as dataset:
        return json.loads(dataset.attrs["provenance"])
