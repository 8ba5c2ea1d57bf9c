"""The data set of frame pairs (x_{t-1}, x_t), with a distant frame of the same trajectory as anchor.

Shards are memory-mapped, so a data set may be larger than the memory. The content of a batch depends on the random
generator alone, so a training that resumes needs to know only its step.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sns_core.data.shards import open_shards
from sns_core.errors import UserError
from sns_core.shells import shell_power
from sns_core.streams import generator
from sns_core.systems import System, build_system

SYMMETRIES = ("none", "translations", "all")


@dataclass
class Dataset:
    """One split of the data.

    `shards`: arrays (member, time, layer, y, x) in physical units. `manifest`: the content of the data manifest.
    `static` (S, H, W): fields that never change and that every network sees, of unit variance; None where the data have none.
    """

    shards: list[np.ndarray]
    manifest: dict
    static: torch.Tensor | None = None

    def __post_init__(self):
        self.shards = [np.asarray(shard) for shard in self.shards]  # still mapped; a memmap is slow to index

    @property
    def statistics(self) -> dict:
        """The statistics of the training split, as described in `data.shards`."""
        return self.manifest["statistics"]

    @property
    def frames(self) -> int:
        """The number of frames per trajectory."""
        return self.shards[0].shape[1]

    @property
    def members(self) -> int:
        """The number of trajectories."""
        return sum(len(shard) for shard in self.shards)

    @property
    def system(self) -> System:
        """The system that made the data, built anew."""
        system = self.manifest["system"]
        return build_system(system["name"], system["parameters"])

    def shell_correlation(self) -> list[list[float]]:
        """Return the correlation (C, K) of successive frames in each shell, a mean over the modes of the shell."""
        total = sum(shell_power(shard[:, :-1]) + shell_power(shard[:, 1:]) for shard in self.shards)
        change = sum(shell_power(shard, changes=True) for shard in self.shards)
        return (1 - change / np.maximum(total, np.finfo(float).tiny)).tolist()

    def first(self, trajectories: int | None = None, frames: int | None = None) -> "Dataset":
        """Return the first `frames` of the first `trajectories` (None: all), with the statistics of the whole split."""
        shards, remaining = [], self.members if trajectories is None else trajectories
        for shard in self.shards:
            if remaining > 0:
                shards.append(shard[:remaining, :frames])
                remaining -= len(shard)
        return replace(self, shards=shards)

    def gather(self, members: np.ndarray, times: np.ndarray) -> torch.Tensor:
        """Return the frames (n, layer, y, x) at the (n,) members and times, in units of the training split's std."""
        bounds = np.cumsum([0] + [len(shard) for shard in self.shards])
        owners = np.searchsorted(bounds, members, side="right") - 1
        rows = [self.shards[o][m - bounds[o], t] for o, m, t in zip(owners, members, times, strict=True)]
        std = np.asarray(self.statistics["std"], dtype=np.float32)[:, None, None]
        return torch.from_numpy(np.stack(rows) / std)


def load_dataset(manifest: Path, split: str, thorough: bool = False) -> Dataset:
    """Open one split of a sharded data set.

    Each shard is held to its checksum in the manifest. `thorough`: also read those above READ_ALWAYS bytes that have the size
    and the time in their record. Raises UserError for a missing split, and DamagedFile where `manifest` is no data manifest,
    or a shard is missing, truncated, altered or no array of float32 in the shape that the manifest states.
    """
    content, shards, static = open_shards(manifest, split, thorough)
    return Dataset(shards, content, None if static is None else torch.tensor(static))


def true_frames(manifest: Path, seed: int, count: int = 512) -> torch.Tensor:
    """Draw frames (count, C, m, m) of the training split with replacement, in units of its standard deviation."""
    dataset, stream = load_dataset(manifest, "train"), generator(seed, "anchors")
    member, time = (torch.randint(n, (count,), generator=stream).numpy() for n in (dataset.members, dataset.frames))
    return dataset.gather(member, time)


class PairSampler:
    """A source of random batches (B, F, C, H, W) of consecutive frames, in units of the training split's std.

    `frames`: number of consecutive frames per sample (2: a pair). `anchor_gap`: least distance, in frames, between the
    sample and its anchor frame, which stands in front (None: no anchor). `symmetries`: the symmetries of the system that
    move samples: none, translations or all. Raises UserError where the trajectories are too short, and for
    other `symmetries`.
    """

    def __init__(self, dataset: Dataset, frames: int = 2, anchor_gap: int | None = None, symmetries: str = "none"):
        length = dataset.frames
        if length < frames:
            raise UserError(f"samples of {frames} consecutive frames need longer trajectories, these have {length}")
        if anchor_gap is not None and length < 2 * anchor_gap + frames:
            raise UserError(
                f"anchor_gap {anchor_gap} needs trajectories of {2 * anchor_gap + frames} frames or more, "
                f"these have {length}"
            )
        self.dataset, self.frames, self.anchor_gap = dataset, frames, anchor_gap
        if symmetries not in SYMMETRIES:
            raise UserError(f"symmetries: {symmetries!r} is none of {', '.join(SYMMETRIES)}")
        self.symmetries, self.system = symmetries, dataset.system

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Draw a batch (B, F, C, H, W), where F counts the anchor frame."""
        length, frames = self.dataset.frames, self.frames

        def integers(high, count=batch):
            return torch.randint(high, (count,), generator=generator).numpy()

        member, first = integers(self.dataset.members), integers(length - frames + 1)
        times = first[:, None] + np.arange(frames)
        if self.anchor_gap is not None:
            # The anchor is drawn uniformly from all frames that are at least `gap` frames before or after the sample.
            gap = self.anchor_gap
            before, after = np.maximum(first - gap + 1, 0), np.minimum(first + frames - 1 + gap, length)
            count = before + length - after
            pick = (torch.rand(batch, generator=generator).numpy() * count.astype(np.float32)).astype(int)
            anchors = np.where(pick < before, pick, after + pick - before)
            times = np.concatenate([anchors[:, None], times], axis=1)
        flat = self.dataset.gather(np.repeat(member, times.shape[1]), times.ravel())
        sample = flat.view(batch, times.shape[1], *flat.shape[1:])
        return sample if self.symmetries == "none" else self.system.augment(sample, generator, self.symmetries)
