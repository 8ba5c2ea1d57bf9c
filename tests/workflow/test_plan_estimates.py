"""The estimates of `snakemake plan`: work, counted by hand; calls per step; time."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from sns_core.catalogue import OBJECTIVES
from sns_core.systems import KolmogorovFlow
from sns_workflow import configuration, plan
from sns_workflow.operation_count import Counter, OperationCount


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_network_call_of_each_objective_is_counted(root, config, objective):
    config = configuration.merge(config, yaml.safe_load((root / "config/rivals.yaml").read_text()))
    name = next(name for name, spec in config["models"].items() if spec["objective"] == objective)
    call = plan.Scale(configuration.read(config).systems["kolmogorov"]).network_call(name)
    assert call.flops > 1e6 and call.bytes > 1e6 and call.kernels > 10


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


def test_a_job_belongs_to_the_system_in_whose_folder_it_writes(monkeypatch):
    """A system may be called like a folder above it."""
    monkeypatch.setattr(plan.configuration, "resolve", lambda config, name: name)
    monkeypatch.setattr(plan, "Scale", lambda name: name)
    monkeypatch.setattr(plan, "estimate", lambda job, system: plan.Estimate({"of": system}))
    config = {"results": "results", "run": "mine", "use": {"systems": ["results", "mine", "flow"]}}
    names = ("results/mine/flow/figures/error.png", "results/mine/mine/data/train.nc", "results/mine/report.html")
    jobs = [plan.Job("plot_error", {}, "", outputs=[Path(name)]) for name in names]
    assert [estimate.work["of"] for _, estimate in plan.estimate_all(config, jobs)] == ["flow", "mine", None]


def test_the_calls_of_a_step_follow_the_method():
    walk = {"kind": "refinement", "stride": 8, "max_level": 8}
    assert plan.denoiser_calls({**walk, "renoise": False}, 100) == 1, (
        "one call estimates the levels and makes the first move"
    )
    assert plan.denoiser_calls({**walk, "renoise": True}, 100) == 2
    assert plan.denoiser_calls({**walk, "stride": 2, "renoise": False}, 100) == 4
    every_second = {"renoise": False, "refine_every": 2}
    assert plan.denoiser_calls({**walk, **every_second}, 100) == 0.5, "one call in two steps"
    assert plan.denoiser_calls({**walk, "kind": "thermalizer", "refine_every": 4, "renoise": True}, 100) == 0.5
    assert plan.denoiser_calls({"kind": "acdm", "stride": 4}, 200) == 50
    assert plan.denoiser_calls({"kind": "generation", "stride": 2, "condition_level": 0}, 100) == 50
    assert plan.denoiser_calls({"kind": "calibrated_refinement", "level": None}, 100) == 1, (
        "looked at and estimated in one"
    )
    assert plan.denoiser_calls({"kind": "pointwise"}, 0) == 1
