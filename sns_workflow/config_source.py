"""A system whose data come from files (`source`): what the files say, in the form that a system with a solver has.

The files are opened once. What they say is kept in `.snakemake/sns/`, by the names, sizes and times of the files,
because each job of a run reads the configuration again.
"""

import contextlib
import functools
import glob
import hashlib
import json
import os
from pathlib import Path

from sns_core.grids import grid_shape, longer_side
from sns_workflow.config_models import used_models
from sns_workflow.config_values import ConfigurationError

CACHE = Path(".snakemake", "sns")


def described_source(name: str, config: dict) -> dict:
    """Return what the configuration of a system with a solver states, from the files of its source.

    {"system", "emulator", "data"} as `resolve` gives them for a solver; "source": what the stages take; "recorded": the
    method that stands for the solver, which reads the test trajectories. Raises ConfigurationError where files are
    missing or do not fit, and where they hold less than the configuration asks for.
    """
    block, where = config["systems"][name], f"systems.{name}"
    spin_up = float(block["data"].get("spin_up", 0.0))
    files = _listed(f"{where}.source.files", block["source"]["files"])
    _check_apart(f"{where}.source.files", files)
    source = {**block["source"], "files": files, "spin_up": spin_up}
    if block["data"].get("reference"):
        raise ConfigurationError(
            f"{where}.data.reference: only a solver can make a reference ensemble; leave it out: the test trajectories are the "
            "reference, and floors are drawn from them"
        )
    facts = _facts(f"{where}.source", source)
    emulator = {"resolution": facts["resolution"], "step": facts["step"], **block["emulator"]}
    if "resolution" in block["emulator"] and not all(source["periodic"].values()):
        raise ConfigurationError(
            f"{where}.emulator.resolution: a flow that is not periodic keeps the points of its files; make the files coarser"
        )
    (rows, columns), (height, width) = grid_shape(emulator["resolution"]), grid_shape(facts["resolution"])
    if rows > height or columns > width or (height > 1 and rows * width != columns * height):
        raise ConfigurationError(
            f"{where}.emulator.resolution: {rows} x {columns} is no coarser grid of the {height} x {width} points of the files; take the "
            "same share of both"
        )
    ratio = emulator["step"] / facts["step"]
    stride = max(1, round(ratio))
    if abs(ratio - stride) > 1e-3 or source["start"] % stride:
        raise ConfigurationError(
            f"{where}.emulator.step: {emulator['step']:g} must be a multiple of the {facts['step']:g} between frames of the files, and "
            f"source.start a multiple of as many frames; nearest: {stride * facts['step']:g}"
        )
    splits = _splits(where, source, facts["splits"], stride, block["data"].get("splits", {}))
    folder = f"{config['results']}/{config['run']}/{name}/data"
    steps = (min(facts["continued"] // stride + (facts["continued"] % stride > 0), 10**12)) - 1
    return {
        "system": {
            "name": "RecordedFlow",
            "parameters": {**facts["parameters"], "resolution": emulator["resolution"], "dt": emulator["step"]},
        },
        "emulator": emulator,
        "data": {
            **block["data"],
            "spin_up": spin_up,
            "group_members": None,
            "splits": splits,
            # Floors are drawn from all test trajectories, from the frame on from which rollouts start.
            "reference": {"members": splits["test"]["members"], "duration": steps * emulator["step"]},
        },
        "source": source,
        "recorded": {
            "label": "Data",
            "kind": "external",
            "models": {},
            "file": f"{folder}/{'continued' if source['start'] else 'test'}.nc",
            "steps": steps,
        },
    }


def fit_to_files(system: str, resolved: dict) -> list[str]:
    """Fit lengths and numbers of the defaults that exceed what the files hold; return one line for each change.

    `resolved`: what holds for a system, changed in place, with the solver's stand-in under "recorded".
    """
    lines, splits, recorded = [], resolved["data"]["splits"], resolved["recorded"]["steps"]
    rollout, metrics, members = resolved["rollout"], resolved["metrics"], splits["test"]["members"]

    def fit(path: str, section: dict, key: str, most: int, value: int) -> None:
        """Set a number to `value` where it exceeds `most`."""
        if section[key] is not None and section[key] > most:
            lines.append(
                f"{path}.{key}: {section[key]} exceeds the {most} that the files of {system} allow; {value} is used"
            )
            section[key] = value

    lines += _notes_on_degrees(system, resolved)
    fit("rollout", rollout, "members", members, max(1, members // 2))  # floors need twice as many in the files
    fit("metrics.ensemble", metrics["ensemble"], "starts", members, members)
    # The trajectories stand for the solver in whole blocks of statistics.
    blocks = min(recorded, rollout["steps"]) // rollout["block_steps"] * rollout["block_steps"]
    steps = min(splits["test"]["frames"] - 1, blocks or recorded)
    fit("rollout", rollout, "lags", steps, max(1, steps // 3))
    stored = steps // rollout["frame_stride"]
    fit("metrics", metrics, "map_lags", stored, max(1, stored // 3))
    whole = longer_side(resolved["emulator"]["resolution"]) // 2
    if metrics["shells"][1] > whole:
        lines.append(
            f"metrics.shells: shell {metrics['shells'][1]} exceeds the {whole} of {system}; {whole - 1} is the last one"
        )
        metrics["shells"] = [min(metrics["shells"][0], whole - 1), whole - 1]
    for model in sorted(resolved["models"].keys() & used_models(resolved)):
        spec, path = resolved["models"][model], f"models.{model}"
        fit(f"{path}.training", spec["training"], "trajectories", *[splits["train"]["members"]] * 2)
        fit(f"{path}.training", spec["training"], "frames", *[splits["train"]["frames"]] * 2)
        if spec.get("diffusion", {}).get("anchor"):
            frames = min(spec["training"]["frames"] or splits["train"]["frames"], splits["validation"]["frames"])
            gap = (frames - 2) // 2
            fit(f"{path}.diffusion", spec["diffusion"], "anchor_gap", gap, gap // 2)
    return lines


def _notes_on_degrees(system: str, resolved: dict) -> list[str]:
    """Return a line about positions on a sphere, which count as positions on a plane; none where they are in other units."""
    if resolved["system"]["parameters"]["length_units"] != "degree":
        return []
    line = (
        f"systems.{system}.source: positions are in degrees and count as those of a plane, but on a sphere points lie closer along x "
        "towards the poles; interpolate to a plane, or stay near the equator"
    )
    if resolved["source"]["periodic"]["y"]:
        line += "; the flow is taken to be periodic along y, so say source.periodic: {y: false} if y is a latitude"
    return [line]


def cut_to_blocks(where: str, recorded: dict, rollout: dict, start: int) -> dict:
    """Return the stand-in of the solver, cut to whole blocks of statistics.

    `start`: the frame of the test trajectories from which rollouts start.
    """
    block = rollout["block_steps"]
    steps = min(recorded["steps"], rollout["steps"]) // block * block
    if steps < block:
        if start == 0:
            raise ConfigurationError(
                f"{where}.source.files: a test trajectory has {recorded['steps'] + 1} frames, and rollout.block_steps {block} needs "
                f"{block + 1}; name longer ones, or take shorter blocks"
            )
        raise ConfigurationError(
            f"{where}.source.start: {recorded['steps']} frames of a test trajectory follow on the frame from which rollouts start, and "
            f"rollout.block_steps is {block}; start earlier, or take shorter blocks"
        )
    return {**recorded, "steps": steps, "segment_steps": min(rollout["segment_steps"], steps)}


def _listed(where: str, files) -> dict[str, list[str]] | list[str]:
    """Return the files of each pattern, sorted."""
    if isinstance(files, dict):
        return {split: _listed(f"{where}.{split}", patterns) for split, patterns in files.items()}
    paths = []
    for pattern in [files] if isinstance(files, str) else files:
        fitting = sorted(glob.glob(pattern, recursive=True))
        if not fitting:
            raise ConfigurationError(f"{where}: no file fits {pattern!r} in {Path.cwd()}; correct the pattern")
        paths += fitting
    return list(dict.fromkeys(paths))


def _check_apart(where: str, files) -> None:
    """Raise ConfigurationError for a file that belongs to two splits: what a model learns from must not test it."""
    split_of: dict[str, str] = {}
    for split, paths in files.items() if isinstance(files, dict) else ():
        for path in paths:
            first = split_of.setdefault(os.path.realpath(path), split)
            if first != split:
                raise ConfigurationError(
                    f"{where}: {path} is in {first!r} and in {split!r}, and a model must not be tested on what it has learnt; name "
                    "other files, or one pattern for all splits (source.splits)"
                )


def _splits(where: str, source: dict, sizes: dict, stride: int, configured: dict) -> dict:
    """Return members and frames of each split: all that the files hold, or as many as are configured."""
    splits = {}
    for split, size in sizes.items():
        most = {"members": size["members"], "frames": -(-size["frames"] // stride)}
        wanted = configured.get(split, most)
        for key, number in wanted.items():
            if number > most[key]:
                raise ConfigurationError(
                    f"{where}.data.splits.{split}.{key}: {number} exceeds the {most[key]} of the files"
                )
        if split == "test" and source["start"] and wanted["frames"] != most["frames"]:
            raise ConfigurationError(
                f"{where}.data.splits.test.frames: {wanted['frames']} would cut off the frame from which rollouts start; move source.start"
            )
        splits[split] = wanted
    return splits


def _facts(where: str, source: dict) -> dict:
    """Return `facts_of` a source, from the cache where its files have not changed."""
    files = source["files"]
    paths = [path for part in files.values() for path in part] if isinstance(files, dict) else files
    paths = [*paths, *([source["static"]["file"]] if source["static"] else [])]
    return _read_facts(where, json.dumps(source, sort_keys=True), json.dumps([_state(path) for path in paths]))


def _state(path: str) -> list:
    """Return what changes when a file or a Zarr store is written again."""
    places = [path, *(os.path.join(path, name) for name in (".zmetadata", "zarr.json") if os.path.isdir(path))]
    return [path, *((s.st_size, s.st_mtime_ns) for s in map(os.stat, filter(os.path.exists, places)))]


@functools.lru_cache(maxsize=64)
def _read_facts(where: str, source: str, state: str) -> dict:
    path = CACHE / f"source_{hashlib.sha256(f'{source} {state}'.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    from sns_core.data.source import facts_of
    from sns_core.errors import UserError

    try:
        facts = facts_of(json.loads(source))
    except UserError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(facts))
        partial.replace(path)
    return facts
