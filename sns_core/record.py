"""The record of a result: `provenance/<name>.json` beside the file `<name>` says what made it, and from what.

A record holds the stage and its arguments (the slice of the configuration, the seed), a fingerprint of the code, the
commit, versions, the host, the wall time, and the checksums of all files that the stage read and wrote. The job writes
the record, not Snakemake. So the content of a folder can be compared with a configuration wherever the folder lies
(`snakemake verify`), and no stage reads a file that has changed since it was written (`hold`).
"""

import contextlib
import json
import os
import platform
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sns_core.errors import DamagedFile
from sns_core.files import FileTree, provenance, read_json, sha256, write_json

FORMAT = "sns-record-1"
RUN_FORMAT = "sns-provenance-1"

# Arguments of stages that name a file to be written, besides all those whose names start with "output".
WRITTEN = ("history", "restart")
# The end of the name of a file that a stage writes beside its output without an argument of its own.
BESIDE = {"train_model": ".json", "plot_movie": "_small.mp4"}

# Bytes up to which a file is read to be compared with its record. A larger file with the size and the time in its record is
# taken for the same: the large files, trajectories and segments, hold checksums of their own.
READ_ALWAYS = 2**26


def record_path(result: Path) -> Path:
    """Return the path of the record of a result."""
    return Path(result).parent / "provenance" / f"{Path(result).name}.json"


def running_path(result: Path) -> Path:
    """Return the path of the file that exists while a job makes a result."""
    return Path(result).parent / "provenance" / f"{Path(result).name}.running"


def as_json(value):
    """Return an argument as JSON holds it: paths become texts, tuples become lists."""
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def outputs_of(arguments: dict) -> list[Path]:
    """Return the files that a stage writes: the arguments in WRITTEN, or named `output...`, whose value is one path."""
    names = {name for name in arguments if name.startswith("output")}.union(WRITTEN)
    return [path for name, path in arguments.items() if name in names and isinstance(path, Path)]


def beside(stage: str, output: Path) -> list[Path]:
    """Return the files that a stage writes beside its output: a model's note, the smaller movie, the PDF of a figure."""
    ending = BESIDE.get(stage, ".pdf" if stage.startswith("plot_") else None)
    path = output.with_name(f"{output.stem}{ending}")
    return [path] if ending and path.exists() else []


def inputs_of(stage: Callable, arguments: dict) -> list[Path]:
    """Return the files that a stage reads, each once, in the order of its arguments.

    The annotations of the stage say which arguments name files: Path, list[Path], dict[str, Path] and the like, and
    FileTree. Files that the stage writes are left out, and so are names of files that do not exist.
    """
    hints = typing.get_type_hints(stage, include_extras=True)
    outputs = set(outputs_of(arguments))
    paths = dict.fromkeys(path for name, value in arguments.items() for path in _files_in(value, hints[name]))
    return [path for path in paths if path not in outputs and os.path.isfile(path)]


def _files_in(value, hint) -> Iterator[Path]:
    """Yield the names of files in an argument with the annotation `hint`."""
    if value is None:
        return
    if hint == FileTree:
        yield from _leaves(value)
    elif hint is Path:
        yield Path(value)
    elif typing.get_origin(hint) is list:
        for item in value:
            yield from _files_in(item, *typing.get_args(hint))
    elif typing.get_origin(hint) is dict:
        for item in value.values():
            yield from _files_in(item, typing.get_args(hint)[1])
    elif type(None) in typing.get_args(hint):
        for kind in typing.get_args(hint):
            yield from _files_in(value, kind)


def _leaves(value) -> Iterator[Path]:
    """Yield the texts in nested dicts and lists as paths."""
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif isinstance(value, Path | str):
        yield Path(value)


def _file_entry(path: Path) -> dict:
    """Return the checksum, the size and the time of a file, as a record holds them."""
    status = path.stat()
    return {"sha256": sha256(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def recorded_entry(path: Path) -> dict | None:
    """Return what the record of a file holds of the file (see `_file_entry`); None without a record of it."""
    try:
        entry = json.loads(record_path(path).read_text())["outputs"][path.name]
        return entry if {"sha256", "bytes", "modified_ns"} <= set(entry) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def checksum(path: Path, read_always: int = 0) -> str:
    """Return the sha256 of a file, from its record where the file still has the size and the time in the record.

    `read_always`: bytes up to which a file is read all the same.
    """
    entry, status = recorded_entry(path), path.stat()
    same = entry and (entry["bytes"], entry["modified_ns"]) == (status.st_size, status.st_mtime_ns)
    return entry["sha256"] if same and status.st_size > read_always else sha256(path)


def hold(paths: Iterable[Path]) -> None:
    """Raise DamagedFile, which names all of them, for files that are not what their records say.

    Files without a record are not compared: they come from elsewhere, or hold a checksum of their own.
    """
    entries = {path: recorded_entry(path) for path in map(Path, paths)}
    altered = [path for path, entry in entries.items() if entry and checksum(path, READ_ALWAYS) != entry["sha256"]]
    if altered:
        also = f", and so are {', '.join(map(str, altered[1:4]))}" if len(altered) > 1 else ""
        reason = f"not what its job wrote (its checksum differs from its record, {record_path(altered[0])}){also}"
        raise DamagedFile(altered[0], reason, *altered[1:])


@contextlib.contextmanager
def recorded(stage: Callable, arguments: dict, code: str, log: Path | None, clock) -> Iterator[None]:
    """Hold the inputs of a stage, mark its outputs as being made while the block runs, and write records when it ends well.

    `code`: the fingerprint of the code. `log`: the log of the job. `clock`: a function that returns seconds.
    """
    hold(inputs_of(stage, arguments))
    outputs = outputs_of(arguments)
    marker = {"pid": os.getpid(), "host": platform.node(), "log": str(log) if log else None}
    for path in outputs:
        write_json(running_path(path), marker)
    began = clock()
    try:
        yield
        device = "cpu"
        if "device" in arguments:
            # A stage with a device has loaded torch already. Other stages do without it.
            from sns_core.device import select_device

            device = select_device(arguments["device"])
        record = provenance(as_json(arguments), arguments.get("seed"), str(device))
        record |= {
            "format": FORMAT,
            "stage": stage.__name__,
            "fingerprint": code,
            "wall_seconds": clock() - began,
            "inputs": {str(path): checksum(path) for path in inputs_of(stage, arguments)},
        }
        made = [*outputs, *beside(stage.__name__, arguments["output"])]
        record["outputs"] = {path.name: _file_entry(path) for path in made}
        for path in made:
            # The keys are not sorted, because the order of methods is part of what made a table.
            write_json(record_path(path), record, sort_keys=False)
    finally:
        for path in outputs:
            running_path(path).unlink(missing_ok=True)


def record_provenance(*, configuration: dict, systems: FileTree, methods: dict, seed: int, output: Path) -> None:
    """Write what made a run: its configuration, code, host, data and models, and the seconds that each job took.

    `configuration`: the run's configuration.
    `systems`: system -> {"manifest": file, "data": {split: [files]}, "models": {name: file},
        "segments": {method: [files]}}.
    `methods`: system -> {method: its resolved configuration}, which `sns_core.load` reads.
    `seed`: the run's seed.
    `output`: the JSON file.
    """
    commits, devices, entries = set(), set(), {}
    for system, files in systems.items():
        manifest = read_json(files["manifest"])
        jobs, models = [], {}
        for split, paths in files["data"].items():
            jobs.append(("simulate_trajectories", split, [_record_in(path) for path in paths]))
        for model, path in files["models"].items():
            note_path = Path(path).with_suffix(".json")
            hold([note_path])
            note = read_json(note_path)
            jobs.append(("train_model", model, [note["provenance"]]))
            models[model] = {"sha256": sha256(path), "data": note["data"]}
        for method, paths in files["segments"].items():
            jobs.append(("rollout_segment", method, [_record_in(path) for path in paths]))
        for _, _, records in jobs:
            commits |= {json.dumps(record["code"], sort_keys=True) for record in records}
            devices |= {record["device"] for record in records}
        entries[system] = {
            "data": manifest["identity"],
            "models": models,
            "methods": methods[system],
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
    record |= {"format": RUN_FORMAT, "systems": entries, "code_of_results": [json.loads(c) for c in sorted(commits)]}
    write_json(output, record)


def _record_in(path) -> dict:
    """Return the record that a netCDF file carries in its attributes."""
    import xarray as xr

    with xr.open_dataset(path) as dataset:
        return json.loads(dataset.attrs["provenance"])
