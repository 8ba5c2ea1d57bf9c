"""`snakemake plan` against the smoke run: the jobs that ran, and the bytes that they left."""

import json
from collections import defaultdict
from pathlib import Path

import plan
import pytest
import torch
from snakemake_calls import planned, snakemake
from state import expected
from torch import nn
from work import Counter, Work

from sns_core.record import record_path
from sns_core.systems import KolmogorovFlow

# Whatever is but numbers in files comes out to a few per cent; pictures are guessed from their resolution.
CLOSE = {
    "simulate_trajectories": 0.05, "shard_dataset": 0.02, "train_model": 0.05, "rollout_segment": 0.05, "diagnose_denoiser": 0.15,
    "compute_reference": 0.1, "compute_metrics": 0.1, "aggregate_metrics": 0.3,
}  # fmt: skip
ROUGH = 0.5


@pytest.fixture(scope="module")
def estimates(root, finished):
    configuration = finished / "results" / "smoke" / "logs" / "planned.json"
    found = snakemake(root, finished, "plan")
    assert found.returncode == 0, found.stdout
    (finished / "results/smoke/logs/configuration.json").rename(configuration)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        jobs = expected(root / "Snakefile", configuration, ["all"])
        return plan.estimated(json.loads(configuration.read_text()), jobs), found.stdout


def bytes_of(job, folder: Path) -> int:
    """What a job left: its outputs and their records, and the shards that a manifest lists."""
    files = [folder / path for path in job.outputs]
    files += [record_path(path) for path in files]
    if job.stage == "shard_dataset":
        files += files[0].parent.glob("*.npy")
    return sum(path.stat().st_size for path in files if path.exists())


def test_the_jobs_of_the_plan_are_those_that_ran(root, finished, estimates):
    found, told = estimates
    made = [path for path in (finished / "results/smoke").rglob("*.log")]
    assert len(found) == len([path for path in made if path.stem not in ("plan", "verify", "status")])
    jobs = planned(root, finished, "all", overlay="run: elsewhere") - {"all"}
    assert {job.stage for job, _ in found} == jobs
    assert f"total {len(found)}" in " ".join(told.split())


def test_the_bytes_of_the_plan_are_those_that_were_written(finished, estimates):
    plans, real = defaultdict(float), defaultdict(float)
    for job, estimate in estimates[0]:
        if estimate.basis == "not estimated":
            continue
        stage = "figures" if job.stage.startswith("plot_") else job.stage
        plans[stage] += estimate.bytes
        real[stage] += bytes_of(job, finished)
    for stage, number in plans.items():
        assert number == pytest.approx(real[stage], rel=CLOSE.get(stage, ROUGH)), stage
    numbers = CLOSE.keys()
    assert sum(plans[s] for s in numbers) == pytest.approx(sum(real[s] for s in numbers), rel=0.03)


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
    estimate = plan.Estimate(work={"inference": Work(flops=100, kernels=2), "memory": Work(bytes=5, kernels=2)})
    assert estimate.seconds("gpu") == 1 + 10 + 4 and estimate.seconds("core") == 1 + 100 + 5


def test_the_calls_of_a_step_follow_the_method():
    walk = {"stepper": "refinement", "stride": 8, "max_level": 8}
    assert plan.calls({**walk, "renoise": False}, 100) == 1, "looked at and walked back in one"
    assert plan.calls({**walk, "renoise": True}, 100) == 2
    assert plan.calls({**walk, "stride": 2, "renoise": False}, 100) == 4
    assert plan.calls({"stepper": "acdm", "stride": 4}, 200) == 50
    assert plan.calls({"stepper": "generation", "stride": 2, "condition_level": 0}, 100) == 50
    assert plan.calls({"stepper": "pointwise"}, 0) == 1
