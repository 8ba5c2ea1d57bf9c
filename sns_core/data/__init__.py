"""Trajectory files, shards with their manifest, and the pairs that networks learn from."""

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
    """The names above, loaded when they are asked for: most of them need torch, and who reads frames does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sns_core.data.frames import open_frames, open_members
    from sns_core.data.pairs import Dataset, PairSampler, load_dataset
    from sns_core.data.shards import shard_dataset
    from sns_core.data.trajectories import simulate_trajectories

    return locals()[name]
