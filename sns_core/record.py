"""The record of a result: `provenance/<name>.json` beside the file `<name>` says what made it, and from what.

A record holds the stage and its arguments (the slice of the configuration, the seed), a fingerprint of the code, the
commit, versions, the host, the wall time, and the checksums of all files that the stage read and wrote. The job writes
the record, not Snakemake. So the content of a folder can be compared with a configuration wherever the folder lies
(`snakemake verify`), and no stage reads a file that has changed since it was written (`hold`).
"""

import contextlib
import glob
import json
import os
import platform
import threading
import time
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from sns_core.errors import UserError
from sns_core.files import (
    FileTree,
    checksum,
    file_entry,
    hold,
    provenance,
    read_json,
    record_path,
    recorded_entry,
    sha256,
    write_json,
)

FORMAT = "sns-record-1"
RUN_FORMAT = "sns-provenance-1"
TOUCHED_EVERY = 60.0  # seconds between two signs of life of a job at work
RUN, GALLERY = "provenance.json", "given.json"  # the record of a run, in its own folder and in a folder of the gallery

# Arguments of stages that name a file to be written, besides all those whose names start with "output".
WRITTEN = ("history", "restart")
# Names of files that a stage writes beside its output without an argument of their own; {stem}: of the output's name.
BESIDE = {"train_model": "{stem}.json", "plot_movie": "{stem}_small.mp4", "shard_dataset": "*.npy"}


def running_path(result: Path) -> Path:
    """Return the path of the file that exists while a job makes a result."""
    return Path(result).parent / "provenance" / f"{Path(result).name}.running"


def process_start(pid: int) -> str | None:
    """Return when a process of this machine began, in clock ticks since the machine started. None if no one can say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


@contextlib.contextmanager
def _marked(outputs: list[Path], log: Path | None) -> Iterator[None]:
    """Mark outputs as being made while the block runs. The markers are touched again and again, as a sign of life.

    A process that is killed leaves its markers behind. The number of a process alone does not tell that it lives: the
    number may belong to another process by now, and from another machine no process can be seen.
    """
    marker = {"pid": os.getpid(), "process_start": process_start(os.getpid()), "host": platform.node()}
    marker |= {"log": str(log) if log else None, "began": time.time()}
    for path in outputs:
        write_json(running_path(path), marker)
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(TOUCHED_EVERY):
            for path in outputs:
                with contextlib.suppress(OSError):
                    os.utime(running_path(path))

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for path in outputs:
            running_path(path).unlink(missing_ok=True)


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
    """Return the files that a stage writes beside its output: shards, a model's note, the smaller movie, a figure's PDF."""
    pattern = BESIDE.get(stage, "{stem}.pdf" if stage.startswith("plot_") else "")
    return sorted(output.parent.glob(pattern.format(stem=glob.escape(output.stem)))) if pattern else []


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


@contextlib.contextmanager
def recorded(stage: Callable, arguments: dict, code: str, log: Path | None, clock) -> Iterator[None]:
    """Hold the inputs of a stage, mark its outputs as being made while the block runs, and write records when it ends well.

    `code`: the fingerprint of the code. `log`: the log of the job. `clock`: a function that returns seconds.
    """
    hold(inputs_of(stage, arguments))
    outputs = outputs_of(arguments)
    with _marked(outputs, log):
        began = clock()
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
        entries = {path: file_entry(path) for path in [*outputs, *beside(stage.__name__, arguments["output"])]}
        for path in entries:
            # A file beside the outputs has a record of itself and the outputs, without the other shards of a data set.
            record["outputs"] = {each.name: entries[each] for each in dict.fromkeys([*outputs, path])}
            # The keys are not sorted, because the order of methods is part of what made a table.
            write_json(record_path(path), record, sort_keys=False)


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


def read_run(folder: Path) -> dict:
    """Return what `record_provenance` wrote of a finished run, or of one that is kept in the gallery.

    Raises UserError for a folder without such a record.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give the folder of a run, for example results/demo")
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give the folder of a run, for example results/demo, or of the gallery"
        )
    listing = next((folder / name for name in (RUN, GALLERY) if (folder / name).exists()), None)
    if listing is None:
        above = any((folder.parent / name).exists() for name in (RUN, GALLERY))
        way_out = (
            f"give {folder.parent}"
            if above
            else "run `snakemake` to its end, or give the folder that holds one of them"
        )
        raise UserError(f"{folder}: no finished run, neither {RUN} nor {GALLERY} is there; {way_out}")
    hold([listing])
    record = read_json(listing)
    if "provenance" in record:  # of the gallery
        record = {**record["provenance"], "configuration": record["configuration"]}
    return record


def records_below(folder: Path) -> dict[str, dict]:
    """Return the name of each result below a folder -> its record, in the order of the names.

    Files that are no records are left out. Raises DamagedFile for a record that is not readable.
    """
    folder, records = Path(folder), {}
    for path in sorted(folder.glob("**/provenance/*.json")):
        record = read_json(path)
        if record.get("format") == FORMAT:
            records[str((path.parents[1] / path.name.removesuffix(".json")).relative_to(folder))] = record
    return records


def check_current(run: Path, configuration: dict, records: dict[str, dict], results: Iterable[str]) -> None:
    """Raise UserError where results of a run, or results behind them, were made from other files than those that are there.

    That is so after a call that made a part of a changed run, such as its models alone.

    `configuration`: of the run; `records`: of its results, as `records_below` returns them; `results`: names below its
    folder. Files without a record and files outside the folder are not compared.
    """
    # The folder as the jobs named it. It may have been moved since.
    prefix = PurePosixPath(configuration.get("results", ""), configuration.get("run", ""))
    waiting, compared = list(results), set()
    while waiting:
        result = waiting.pop()
        if result in compared or result not in records:
            continue
        compared.add(result)
        for path, read in records[result]["inputs"].items():
            name = str(PurePosixPath(path).relative_to(prefix)) if PurePosixPath(path).is_relative_to(prefix) else ""
            if name in records and (entry := recorded_entry(run / name)) and entry["sha256"] != read:
                raise UserError(
                    f"{run / name}: not the file from which {result} was made, so the run is not finished; call `snakemake` "
                    "for the whole run again"
                )
            waiting.append(name)


def _record_in(path) -> dict:
    """Return the record that a netCDF file carries in its attributes."""
    import xarray as xr

    with xr.open_dataset(path) as dataset:
        return json.loads(dataset.attrs["provenance"])
