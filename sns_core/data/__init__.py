"""Trajectory files, shards with their manifest, and the pairs that networks learn from."""

from sns_core.data.pairs import Dataset, PairSampler, load_dataset
from sns_core.data.shards import shard_dataset
from sns_core.data.trajectories import open_frames, open_members, simulate_trajectories

__all__ = [
    "Dataset",
    "PairSampler",
    "load_dataset",
    "open_frames",
    "open_members",
    "shard_dataset",
    "simulate_trajectories",
]
