"""Trajectory files, shards with their manifest, and the pairs that networks learn from.

The names of this package are imported on first use. Most of them need torch, and a job that only reads frames starts
faster without it.
"""

__all__ = [
    "Dataset",
    "PairSampler",
    "load_dataset",
    "open_frames",
    "open_members",
    "shard_dataset",
    "simulate_trajectories",
]


def __getattr__(name: str):
    """Import a public name of this package on its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sns_core.data.frames import open_frames, open_members
    from sns_core.data.pairs import Dataset, PairSampler, load_dataset
    from sns_core.data.shards import shard_dataset
    from sns_core.data.trajectories import simulate_trajectories

    return locals()[name]
