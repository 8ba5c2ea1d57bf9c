"""Shards for training: plain float32 arrays (member, time, layer, y, x), and the data manifest.

The manifest lists every shard with its sha256, holds the configuration that made the data, and holds the statistics of
the training split that networks and diffusion need, per channel c and shell K:

    mean[c]                mean of the field
    std[c]                 standard deviation of the field; frames are divided by it, and no mean is subtracted
    increment_std[c]       root mean square of x_{t+1} - x_t, in units of std
    shell_amplitude[c, K]  root-mean-square amplitude |w_hat| of the modes with round(|k|) = K, in units of std, for an
                           orthonormal transform
"""

import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data.frames import frames_per_chunk, made_with, open_frames, open_members
from sns_core.errors import DamagedFile, UserError
from sns_core.files import READ_ALWAYS, checksum, read_json, sha256, whole_file, write_json
from sns_core.shells import shell_power
from sns_core.sums import CACHED, field_means

FORMAT = "sns-shards-1"
SPLITS = ("train", "validation", "test")
LARGE_SHARD, PIECE = 2**28, 2**26  # bytes: the statistics of a larger shard are those of pieces of this size
READ_BYTES = 2**23  # of frames that are read and written at a time
STEADY = 1e-6  # standard deviations: frames that change less do so by the rounding of float32
FAR = 6.0  # standard deviations of a mean from zero; a member counts as lost beyond 12


def _read(source: Path, frames: xr.DataArray) -> np.ndarray:
    """Read frames of a trajectory file, float32. Raise DamagedFile where data are damaged or not finite."""
    try:
        block = frames.values
    except (OSError, RuntimeError) as error:
        raise DamagedFile(source, f"damaged data ({error})") from None
    if not np.isfinite(block).all():
        raise DamagedFile(source, "holds NaN or infinite values")
    return np.ascontiguousarray(block, dtype="<f4")


def _pieces(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (first, stop) of the frames of each piece of a shard (member, time, ...): one, or many of a large shard."""
    frames, step_bytes = shape[1], 4 * shape[0] * math.prod(shape[2:])
    length = frames if frames * step_bytes <= LARGE_SHARD else max(1, PIECE // step_bytes)
    return [(first, min(first + length, frames)) for first in range(0, frames, length)]


def _write_shard(
    sources: list[Path], variable: str, shape: tuple, members: slice, path: Path, with_statistics: bool
) -> dict:
    """Write the members of a split that `sources` hold together as one shard, and return its entry in the manifest.

    `shape`: (member, time, layer, y, x) of the shard. `with_statistics`: whether the entry also gets the sums from which the
    statistics are computed, one for each piece of the shard. A few megabytes are in memory at a time.
    """
    digest, sums = hashlib.sha256(), []
    with whole_file(path) as temporary:
        with open(temporary, "wb") as handle:
            for part in itertools.chain([_header(shape)], _parts(sources, variable, members)):
                handle.write(part)
                digest.update(part)
        if with_statistics:
            for first, stop in _pieces(shape):
                # Mapped anew for each piece, because pages that were read stay in memory. A memmap is slow to slice.
                frames = np.asarray(np.load(temporary, mmap_mode="r"))
                before = min(first, 1)  # a frame that the increments of a later piece begin with
                sums.append(moments(frames[:, first - before : stop], before))
    return {"sha256": digest.hexdigest(), "shape": list(shape), "sums": sums}


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the head of a .npy file of float32."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    return head.getvalue()


def _parts(sources: list[Path], variable: str, members: slice) -> Iterator[np.ndarray]:
    """Read the frames of members, one member after the other, READ_BYTES at a time in whole chunks of the files."""
    for source in sources:
        with open_frames(source) as dataset:
            for frames in dataset[variable].sel(member=members):
                count, frame_bytes = len(frames), 4 * math.prod(frames.shape[1:])
                chunk = frames_per_chunk(frame_bytes)
                length = chunk * max(1, READ_BYTES // (chunk * frame_bytes))
                for first in range(0, count, length):
                    yield _read(source, frames[first : first + length])


def moments(frames: np.ndarray, before: int = 0) -> dict:
    """Return the sums from which `statistics_of` computes statistics, of frames (member, time, layer, y, x).

    The increments are those of all frames, the rest is of the frames after the first `before`. Frames may be mapped into memory:
    little of them is held at a time, and the sums have the same bits for blocks of any size.
    """
    members, times, layers = frames.shape[:3]
    values, count, increments = frames[:, before:], members * (times - before), members * (times - 1)
    mean, square = field_means(_with_squares(values), count)
    increment_square = field_means(_squared_increments(frames), increments)[0] if increments else np.zeros(layers)
    return {
        "count": count,
        "mean": mean,
        "square": square,
        "increments": increments,
        "increment_square": increment_square,
        "shell_power": shell_power(values),
    }


def _in_double(frames: np.ndarray, overlap: int = 0) -> Iterator[np.ndarray]:
    """Yield blocks (time, layer, y, x) of about CACHED numbers, float64, with the last `overlap` frames again in the next one."""
    length = max(1, CACHED // math.prod(frames.shape[2:]))
    for member in frames:
        for first in range(0, len(member) - overlap, length):
            yield member[first : first + length + overlap].astype(np.float64)


def _with_squares(frames: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blocks (2, time, layer, y, x) of values and of their squares."""
    for block in _in_double(frames):
        yield np.stack([block, np.square(block)])


def _squared_increments(frames: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blocks (1, time, layer, y, x) of squared differences of successive frames."""
    for block in _in_double(frames, overlap=1):
        increments = np.diff(block, axis=0)
        yield np.square(increments, out=increments)[None]


def statistics_of(sums: list[dict]) -> dict:
    """Return the statistics of the training split (see the module's head) from the `moments` of its parts."""
    count = sum(s["count"] for s in sums)
    mean = sum(s["count"] * s["mean"] for s in sums) / count
    variance = sum(s["count"] * s["square"] for s in sums) / count - mean**2
    increments = sum(s["increments"] * s["increment_square"] for s in sums) / sum(s["increments"] for s in sums)
    power = sum(s["shell_power"] for s in sums) / count
    return {
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "increment_std": np.sqrt(increments / variance).tolist(),
        "shell_amplitude": np.sqrt(power / variance[:, None]).tolist(),
    }


def check_statistics(statistics: dict, layers: list[str], place: Path) -> None:
    """Raise UserError where the frames of a channel are all equal, never change, or stand far from zero.

    Frames are divided by their standard deviation, and no mean is subtracted. So a flow at rest would give NaN, a steady
    one has nothing to learn, and one with a large mean would count as lost from the first step on. `place`: the file that
    the message begins with.
    """
    for channel, name in enumerate(layers):
        mean, std = statistics["mean"][channel], statistics["std"][channel]
        if not std > 1e-7 * abs(mean) or not statistics["increment_std"][channel] > STEADY:
            raise UserError(
                f"{place}: the training frames of {name!r} do not change in time, so there is nothing to learn; drive the flow "
                "more or damp it less (keys of solver)"
            )
        if abs(mean) > FAR * std:
            raise UserError(
                f"{place}: the training frames of {name!r} have a mean of {mean:.3g} and a standard deviation of {std:.3g}, and "
                "no mean is subtracted; let `observe` of the system return deviations from a fixed state"
            )


def _by_split(trajectories: list[Path]) -> dict[str, dict[Path, np.ndarray]]:
    """Return, for each split, its files with the numbers of their members, in the order of the members.

    Raises DamagedFile for a file that is named after a split and holds another one.
    """
    splits: dict[str, dict[Path, np.ndarray]] = {}
    for path in map(Path, trajectories):
        with open_frames(path) as dataset:
            split, named = made_with(dataset)["split"], path.stem.partition("_")[0]
            if named in SPLITS and split != named:
                raise DamagedFile(path, f"holds the split {split!r}, not {named!r} as its name says")
            splits.setdefault(split, {})[path] = dataset["member"].values
    return {split: dict(sorted(files.items(), key=lambda item: item[1][0])) for split, files in splits.items()}


def shard_dataset(*, trajectories: list[Path], output: Path, shard_members: int = 16, threads: int = 1) -> None:
    """Cut trajectory files into shards, and write the data manifest.

    Dask reads, measures and writes the shards in parallel. The shards do not depend on how members are grouped in
    files. Raises UserError for a file that is missing, truncated, not of this project, or made with another
    configuration than the first.

    `trajectories`: the trajectory files of all splits, one or more per split.
    `output`: the data manifest; the shards are written beside it.
    `shard_members`: number of members per shard.
    `threads`: number of threads.
    """
    import dask  # only this stage needs it: training and rollouts in memory run where it is missing

    folder = Path(output).parent
    tasks, places, reference, static = [], [], None, {}
    for split, members_of in _by_split(trajectories).items():
        paths = list(members_of)
        with open_members(paths) as dataset:
            settings = {name: made_with(dataset)[name] for name in ("system", "emulator")}
            if reference is None:
                reference, first = settings, paths[0]
            if settings != reference:
                raise DamagedFile(paths[0], f"made with another configuration than {first}")
            if split == "train" and dataset.sizes["time"] < 2:
                raise UserError(
                    f"{paths[0]}: has a single frame, and statistics need two; raise data.frames and run again"
                )
            variable = next(name for name in dataset.data_vars if name != "final_state")
            members, frame = dataset["member"].values, dataset[variable].shape[1:]
            if split == "train":
                layers = [str(layer) for layer in dataset["layer"].values]
            if split == "train" and "static" in dataset:
                static = {"static": _write_static(dataset["static"].values, folder / "static.npy")}
        for index, start in enumerate(range(0, len(members), shard_members)):
            name, block = f"{split}_{index:04d}.npy", members[start : start + shard_members]
            sources = [path for path in paths if np.isin(block, members_of[path]).any()]
            selection = slice(block[0], block[-1])
            shape = len(block), *frame
            tasks.append(
                dask.delayed(_write_shard)(sources, variable, shape, selection, folder / name, split == "train")
            )
            places.append((split, name))
    if not any(split == "train" for split, _ in places):
        raise UserError(
            f"{output}: no split named 'train' among {', '.join(map(str, trajectories))}; its statistics are the unit of all frames"
        )
    entries = dask.compute(*tasks, scheduler="threads", num_workers=threads)
    splits: dict[str, list] = {}
    sums = []
    for (split, name), entry in zip(places, entries, strict=True):
        sums += entry.pop("sums")
        splits.setdefault(split, []).append({"file": name, **entry})
    with np.errstate(invalid="ignore", divide="ignore"):  # of a flow at rest, which is refused
        statistics = statistics_of(sums)
    check_statistics(statistics, layers, output)
    body = {"format": FORMAT, **reference, "splits": splits, "statistics": statistics, **static}
    identity = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    write_json(output, {**body, "identity": identity})


def _write_static(fields: np.ndarray, path: Path) -> dict:
    """Write fields (S, H, W) that networks see beside every frame, and return their entry in the manifest."""
    with whole_file(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, fields.astype(np.float32))
    return {"file": path.name, "sha256": sha256(path), "shape": list(fields.shape)}


def read_manifest(path: Path) -> dict:
    """Return the content of a data manifest.

    Raises UserError where the file is missing, and DamagedFile where it is no manifest, or an entry is missing or names a file
    outside the manifest's folder.
    """
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise DamagedFile(path, f"not a manifest of shards (its format is not {FORMAT!r})")
    for key, kind in {"splits": dict, "statistics": dict, "system": dict, "emulator": dict, "identity": str}.items():
        if not isinstance(content.get(key), kind):
            raise DamagedFile(path, f"not a whole manifest (its {key!r} is missing or of another type)")
    try:
        listed = [
            *(e for entries in content["splits"].values() for e in entries),
            *filter(None, [content.get("static")]),
        ]
        shards = [(e["file"], e["sha256"], e["shape"]) for e in listed]
    except (KeyError, TypeError) as error:
        raise DamagedFile(path, f"not a whole manifest (an entry of its splits lacks {error})") from None
    for name, _, _ in shards:
        if not isinstance(name, str) or Path(name).name != name:
            raise DamagedFile(path, f"lists {str(name)[:80]!r}, which is no name of a file beside it")
    return content


def open_shards(manifest: Path, split: str, thorough: bool = False) -> tuple[dict, list[np.ndarray], np.ndarray | None]:
    """Return the content of a manifest, the shards of one of its splits, and its static fields or None, mapped into memory.

    For `thorough` and the errors see `data.pairs.load_dataset`.
    """
    manifest = Path(manifest)
    content = read_manifest(manifest)
    if split not in content["splits"]:
        raise UserError(f"{manifest}: has no split {split!r}; it has {', '.join(content['splits'])}")
    shards = [_open_shard(manifest, entry, thorough) for entry in content["splits"][split]]
    static = content.get("static")
    return content, shards, None if static is None else _open_shard(manifest, static, thorough)


def _open_shard(manifest: Path, entry: dict, thorough: bool) -> np.ndarray:
    """Return the array of a shard, mapped into memory; `entry`: of the manifest."""
    path = manifest.parent / entry["file"]
    if not path.exists():
        raise DamagedFile(manifest, f"lists {path}, which is missing")
    if checksum(path, math.inf if thorough else READ_ALWAYS) != entry["sha256"]:
        raise DamagedFile(path, "truncated or altered (its checksum differs)", manifest)
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DamagedFile(path, f"not an array ({error})", manifest) from None
    if shard.dtype != np.float32 or list(shard.shape) != entry["shape"]:
        raise DamagedFile(
            path,
            f"{shard.dtype} of shape {shard.shape}, where {manifest.name} states float32 of {entry['shape']}",
            manifest,
        )
    return shard
