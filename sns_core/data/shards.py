"""Shards for training: plain float32 arrays (member, time, layer, y, x), and the manifest that vouches for them.

The manifest lists every shard with its sha256, says which configuration made the data, and carries the statistics of
the training split that networks and diffusion need:

    std[c]              standard deviation of the field (frames are divided by it; no mean is subtracted)
    increment_std[c]    standard deviation of x_{t+1} - x_t, in units of std
    shell_amplitude[c, K]  root-mean-square amplitude |w_hat| of the modes with round(|k|) = K, orthonormal transform
                        of the normalised field
"""

import hashlib
import json
from pathlib import Path

import dask
import numpy as np

from sns_core.data.frames import made_with, open_frames, open_members
from sns_core.errors import DamagedFile, UserError
from sns_core.files import sha256, whole_file, write_json

FORMAT = "sns-shards-1"
SPLITS = ("train", "validation", "test")


def shell_index(resolution: int) -> np.ndarray:
    """Integer shell round(|k|) of each mode of a half spectrum, (N, N // 2 + 1)."""
    first = np.fft.fftfreq(resolution, 1 / resolution)[:, None]
    last = np.arange(resolution // 2 + 1)[None, :]
    return np.rint(np.hypot(first, last)).astype(np.int64)


def mode_weight(resolution: int) -> np.ndarray:
    """How many modes of the full spectrum each mode of a half spectrum stands for, (N, N // 2 + 1)."""
    weight = np.full((resolution, resolution // 2 + 1), 2.0)  # itself and its mirror image ...
    weight[:, 0] = weight[:, -1] = 1.0  # ... but for the columns that hold both
    return weight


def shell_power(frames: np.ndarray) -> np.ndarray:
    """Sum over (member, time) of the mean power in each shell, (layer, shell)."""
    shells, weight = shell_index(frames.shape[-1]), mode_weight(frames.shape[-1])
    power = np.zeros((frames.shape[2], *shells.shape))
    for t in range(frames.shape[1]):
        spectrum = np.fft.rfft2(frames[:, t].astype(np.float64), norm="ortho")
        power += (np.abs(spectrum) ** 2).sum(0)
    counts = np.bincount(shells.ravel(), weight.ravel())
    return np.stack([np.bincount(shells.ravel(), (weight * p).ravel()) / counts for p in power])


def _read(source: Path, variable: str, members: slice) -> np.ndarray:
    with open_frames(source) as dataset:
        try:
            block = dataset[variable].sel(member=members).values
        except (OSError, RuntimeError) as error:
            raise DamagedFile(source, f"damaged data ({error})") from None
    if not np.isfinite(block).all():
        raise DamagedFile(source, "holds NaN or infinite values")
    return np.ascontiguousarray(block, dtype=np.float32)


def _write_shard(sources: list[Path], variable: str, members: slice, path: Path, with_statistics: bool) -> dict:
    """Members first .. last of a split, of which `sources` hold some each."""
    block = np.concatenate([_read(source, variable, members) for source in sources])
    with whole_file(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, block, allow_pickle=False)
    entry = {"sha256": sha256(path), "shape": list(block.shape)}
    if with_statistics:
        axes = (0, 1, 3, 4)
        wide = block.astype(np.float64)
        entry["sums"] = {
            "count": block.shape[0] * block.shape[1],
            "mean": wide.mean(axes), "square": (wide**2).mean(axes),
            "increments": block.shape[0] * (block.shape[1] - 1),
            "increment_square": (np.diff(wide, axis=1) ** 2).mean(axes),
            "shell_power": shell_power(block),
        }  # fmt: skip
    return entry


def _statistics(sums: list[dict]) -> dict:
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


def _by_split(trajectories: list[Path]) -> dict[str, dict[Path, np.ndarray]]:
    """split -> file -> the numbers of the members in it, in their order."""
    members: dict[str, dict[Path, np.ndarray]] = {}
    for path in map(Path, trajectories):
        with open_frames(path) as dataset:
            split, named = made_with(dataset)["split"], path.stem.partition("_")[0]
            if named in SPLITS and split != named:
                raise DamagedFile(path, f"holds the split {split!r}, not {named!r} as its name says")
            members.setdefault(split, {})[path] = dataset["member"].values
    return {split: dict(sorted(held.items(), key=lambda item: item[1][0])) for split, held in members.items()}


def shard_dataset(*, trajectories: list[Path], output: Path, shard_members: int = 16, threads: int = 1) -> None:
    """Cut trajectory files, for each split one or one a group of members, into shards beside the manifest `output`.

    Blocks of `shard_members` members are read, measured and written in parallel by dask; they are the same however the
    members are grouped in files. Raises UserError for a truncated, foreign or mismatching file.
    """
    folder = Path(output).parent
    tasks, places, reference = [], [], None
    for split, held in _by_split(trajectories).items():
        paths = list(held)
        with open_members(paths) as dataset:
            made_by = {name: made_with(dataset)[name] for name in ("system", "emulator")}
            if reference is None:
                reference, first = made_by, paths[0]
            if made_by != reference:
                raise DamagedFile(paths[0], f"made with another configuration than {first}")
            if split == "train" and dataset.sizes["time"] < 2:
                raise UserError(
                    f"{paths[0]}: has a single frame, and statistics need two; raise data.frames and run again"
                )
            variable = next(name for name in dataset.data_vars if name != "final_state")
            members = dataset["member"].values
        for index, start in enumerate(range(0, len(members), shard_members)):
            name, block = f"{split}_{index:04d}.npy", members[start : start + shard_members]
            sources = [path for path in paths if np.isin(block, held[path]).any()]
            whole = slice(block[0], block[-1])
            tasks.append(dask.delayed(_write_shard)(sources, variable, whole, folder / name, split == "train"))
            places.append((split, name))
    if not any(split == "train" for split, _ in places):
        raise UserError(f"{output}: no split named 'train' among {', '.join(map(str, trajectories))}")
    entries = dask.compute(*tasks, scheduler="threads", num_workers=threads)
    splits: dict[str, list] = {}
    sums = []
    for (split, name), entry in zip(places, entries, strict=True):
        if "sums" in entry:
            sums.append(entry.pop("sums"))
        splits.setdefault(split, []).append({"file": name, **entry})
    body = {"format": FORMAT, **reference, "splits": splits, "statistics": _statistics(sums)}
    identity = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    write_json(output, {**body, "identity": identity})
