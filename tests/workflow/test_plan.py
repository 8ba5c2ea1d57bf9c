"""`snakemake plan` against the smoke run: the jobs that ran, and the frames that they left."""

import json
from collections import defaultdict

import pytest
import torch
import xarray as xr
from snakemake_calls import planned, snakemake
from torch import nn

from sns_core.systems import KolmogorovFlow
from sns_workflow import plan
from sns_workflow.inspect_run import expected_jobs
from sns_workflow.operation_count import Counter, OperationCount


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


def test_operations_are_counted_as_by_hand():
    with torch.device("meta"):
        layer, x = nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.empty(2, 3, 16, 16)
    with torch.no_grad(), Counter() as counter:
        layer(x)
    assert counter.work.flops == 2 * (2 * 16 * 16) * (3 * 5 * 9)
    assert counter.work.bytes == 4 * (2 * 3 * 256 + 5 * 3 * 9 + 2 * 5 * 256) and counter.work.kernels == 1


def test_a_solver_step_grows_with_the_points_of_its_grid():
    counted = []
    for resolution in (32, 64):
        flow = KolmogorovFlow(resolution, dtype=torch.float32)
        carry = flow.start(torch.randn(1, 1, resolution, resolution))
        with Counter() as counter:
            flow.step(carry)
        counted.append(counter.work)
    assert counted[1].bytes / counted[0].bytes == pytest.approx(4, rel=0.05)
    assert counted[0].kernels == counted[1].kernels


def test_time_is_work_over_rate_and_never_less_than_the_kernels_take(monkeypatch):
    rates = {
        "gpu": {"inference": 10.0, "memory": 5.0, "kernel": 2.0},
        "core": {"inference": 1.0, "memory": 1.0},
        "job": 1.0,
    }
    monkeypatch.setattr(plan, "RATES", rates)
    estimate = plan.Estimate(
        work={"inference": OperationCount(flops=100, kernels=2), "memory": OperationCount(bytes=5, kernels=2)}
    )
    assert estimate.seconds("gpu") == 1 + 10 + 4 and estimate.seconds("core") == 1 + 100 + 5


def test_the_calls_of_a_step_follow_the_method():
    walk = {"kind": "refinement", "stride": 8, "max_level": 8}
    assert plan.denoiser_calls({**walk, "renoise": False}, 100) == 1, "looked at and walked back in one"
    assert plan.denoiser_calls({**walk, "renoise": True}, 100) == 2
    assert plan.denoiser_calls({**walk, "stride": 2, "renoise": False}, 100) == 4
    assert plan.denoiser_calls({"kind": "acdm", "stride": 4}, 200) == 50
    assert plan.denoiser_calls({"kind": "generation", "stride": 2, "condition_level": 0}, 100) == 50
    assert plan.denoiser_calls({"kind": "pointwise"}, 0) == 1
