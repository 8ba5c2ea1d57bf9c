"""The experiment of config/regime.yaml at the smoke scale: a thousand levels, heads that see places, the bookkeeping "indices"."""

import copy

import pandas as pd
import xarray as xr
import yaml
from snakemake_calls import snakemake

from sns_workflow.configuration import merge

TINY = {
    "run": "tiny-regime",
    "systems": {"kolmogorov": {"emulator": {"step": 0.02}}},
    "models": {"sns_white": {"diffusion": {"levels": 1000}}},
    # Heads that have hardly learnt read any of the levels, and each level is a call. The file gives these two steps of their own.
    "methods": {name: {"max_level": 3, "steps": 20, "segment_steps": 10} for name in ("sns_published", "sns_indices")},
}


def test_the_experiment_runs_and_no_frame_is_read_as_clean(root, tmp_path):
    regime, smoke = (yaml.safe_load((root / "config" / f"{name}.yaml").read_text()) for name in ("regime", "smoke"))
    tiny = {**TINY, "use": copy.deepcopy(regime["use"])}
    overlay = yaml.safe_dump(merge(merge(regime, smoke), tiny))
    done = snakemake(root, tmp_path, "metrics", overlay=overlay)
    assert done.returncode == 0, done.stdout[-4000:]
    folder = tmp_path / "results/tiny-regime/kolmogorov"
    table = pd.read_csv(folder / "scorecard.csv")
    assert set(table["method"]) >= {"pointwise", "sns_indices", "sns_published"}
    with xr.open_dataset(folder / "rollouts/sns_indices/0-1/segment_0001.nc") as segment:
        assert int(segment["levels"].min()) >= 1 and bool(segment["vorticity"].notnull().all())
