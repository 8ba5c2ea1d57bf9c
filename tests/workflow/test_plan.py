"""`snakemake plan` agrees with the smoke run: its jobs, and the frames that they wrote."""

import json
from collections import defaultdict

import pytest
import xarray as xr
from snakemake_calls import planned, snakemake

from sns_workflow import plan
from sns_workflow.jobs import expected_jobs


@pytest.fixture(scope="module")
def estimates(root, finished):
    call = snakemake(root, finished, "plan")
    assert call.returncode == 0, call.stdout
    written = finished / "results/smoke/logs/configuration.json"
    config = json.loads(written.read_text())
    written.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        jobs = expected_jobs(str(root / "Snakefile"), config, ["all"])
    return plan.estimate_all(config, jobs), call.stdout


def test_the_jobs_of_the_plan_are_those_that_ran(root, finished, estimates):
    jobs_and_estimates, printed = estimates
    logs = [path for path in (finished / "results/smoke").rglob("*.log")]
    assert len(jobs_and_estimates) == len([path for path in logs if path.stem not in ("plan", "verify", "status")])
    jobs = planned(root, finished, "all", overlay="run: elsewhere") - {"all"}
    assert {job.stage for job, _ in jobs_and_estimates} == jobs
    assert f"total {len(jobs_and_estimates)}" in " ".join(printed.split())


def test_the_frames_of_the_plan_are_those_that_were_written(finished, estimates):
    planned_bytes, written = defaultdict(float), defaultdict(float)
    for job, estimate in estimates[0]:
        if job.stage in ("simulate_trajectories", "rollout_segment"):
            planned_bytes[job.stage] += estimate.frame_bytes
            with xr.open_dataset(finished / job.outputs[0]) as dataset:
                written[job.stage] += dataset["vorticity"].size * 4
        elif job.stage == "shard_dataset":
            planned_bytes[job.stage] += estimate.frame_bytes
            shards = (finished / job.outputs[0]).parent.glob("*.npy")
            written[job.stage] += sum(path.stat().st_size - 128 for path in shards)
    assert len(written) == 3 and planned_bytes == written
