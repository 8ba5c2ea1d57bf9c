"""The workflow on a real SLURM: jobs that fail, are cancelled, put back, out of time, orphaned, and on two nodes.

After each fault the call reports it, submits the job again, and makes the results of the local run, bit for bit.
"""

import contextlib
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers import equal
from snakemake_calls import SYSTEM, snakemake, wait_for
from submitted import MODEL, OVERLAY, Submitter, Watch, stages, without_surrogate

from sns_core.files import read_tensors

RESULTS = ["data/train.nc", "shards/manifest.json", "models/pointwise.safetensors", "models/pointwise.csv",
           "models/sns_residual.safetensors", "calibrations/sns.json", "rollouts/sns/0-1/segment_0000.nc", "metrics/reference.nc",
           "metrics/sns_windows.csv"]  # fmt: skip
SURROGATE = ["models/pointwise.safetensors", "models/pointwise.csv"]
ON_GPUS = {
    "simulate_trajectories",
    "train_model",
    "calibrate_refinement",
    "rollout_segment",
    "rollout_reference",
    "rollout_ensemble",
    "rollout_grids",
    "measure_cost",
}


def assert_same(folder: Path, undisturbed: Path, names=SURROGATE) -> None:
    for name in names:
        assert equal(folder / SYSTEM / name, undisturbed / SYSTEM / name), name


def at_rest(folder: Path, watch: Watch):
    """Return whether the training has stopped at the checkpoint that its call named, and the watch has seen it."""
    return lambda: (folder / "stopped").exists() and watch.steps


def test_the_profile_plans_without_slurm_and_a_training_requests_one_gpu_per_device(root, tmp_path):
    result = snakemake(
        root,
        tmp_path,
        MODEL,
        overlay=OVERLAY,
        flags=("--dry-run", "--workflow-profile", str(root / "profiles" / "slurm")),
    )
    assert result.returncode == 0, result.stdout
    resources = dict(re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: (.*)", result.stdout, re.M))
    assert (
        "gpu=1" in resources["train_model"]
        and "mem_mb=3000" in resources["train_model"]
        and "gpu" not in resources["shard_dataset"]
    )


@pytest.fixture
def asks_for_gres(cluster, root, tmp_path) -> Submitter:
    """Calls with the profile, edited as its comments advise for a cluster that uses partitions and gres."""
    profile = (root / "profiles" / "slurm" / "config.yaml").read_text()
    adapted = profile.replace(
        "train_model: {gpu: threads}", 'train_model: {gpu: 0, slurm_partition: others, gres: "gpu:1"}'
    )
    assert adapted != profile
    submitter = Submitter(cluster, root)
    submitter.profile = tmp_path / "profile"
    submitter.profile.mkdir()
    (submitter.profile / "config.yaml").write_text(adapted)
    return submitter


@pytest.fixture(scope="module")
def stalled(submitter, undisturbed, tmp_path_factory):
    """A training that stands still and has a time limit of one minute, which passes while the next tests run."""
    folder = without_surrogate(undisturbed, tmp_path_factory.mktemp("limit") / "run")
    with Watch(folder) as watch, submitter.started(folder, MODEL, stops_at=3) as process:
        wait_for(at_rest(folder, watch), process)
        (job,) = submitter.jobs(folder)
        submitter.cluster.call("scontrol", "update", f"JobId={job['JobId']}", "TimeLimit=1")
        yield folder, process, watch, watch.steps[-1]


@pytest.fixture(scope="module")
def submitted(stalled, submitter, tmp_path_factory):
    """The run up to its tables, all through sbatch. The job that writes the shards fails at its first attempt."""
    folder = tmp_path_factory.mktemp("slurm")
    status, said = submitter.call(folder, "metrics", fails_once="shard_dataset")
    assert status == 0, said
    return folder, said


def test_every_stage_is_a_job_and_the_results_are_those_of_a_local_run(submitter, submitted, undisturbed):
    folder, _ = submitted
    jobs = {job["JobId"]: job for job in submitter.jobs(folder)}
    began = stages(folder)
    assert {stage for stage, *_ in began} == {
        "simulate_trajectories", "shard_dataset", "train_model", "calibrate_refinement", "rollout_segment", "rollout_ensemble",
        "rollout_reference", "compute_reference", "draw_floors", "compute_metrics", "aggregate_metrics", "score_methods",
        "rollout_grids", "measure_cost", "tabulate_cost",
    }  # fmt: skip
    assert {number for _, number, *_ in began} == set(jobs), "a stage ran outside of its job"
    for stage, number, *_ in began:
        assert jobs[number]["Comment"].startswith(f"rule_{stage}") and jobs[number]["JobName"].startswith("sns_")
    assert_same(folder, undisturbed, RESULTS)


def test_jobs_that_use_a_gpu_request_and_get_it(submitter, submitted):
    folder, _ = submitted
    jobs = {job["JobId"]: job for job in submitter.jobs(folder)}
    for stage, number, devices, _ in stages(folder):
        request = jobs[number].get("TresPerJob", "")
        if stage in ON_GPUS:
            assert request == "gres:gpu:1" and devices in ("0", "1", "2"), (stage, request, devices)
        else:
            assert not request and not devices, (stage, request, devices)


def test_a_failed_job_is_submitted_again_with_more_memory_and_time(submitter, submitted):
    folder, said = submitted
    first, second = submitter.jobs(folder, "shard_dataset")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("3000M", "6000M")
    assert (first["TimeLimit"], second["TimeLimit"]) == ("00:30:00", "01:00:00")
    assert f"SLURM-job '{first['JobId']}' failed, SLURM status is: 'FAILED'" in said
    assert "it fails on purpose" in said, "the log of the failed job was not shown"


def test_jobs_of_dask_compute_the_same_metrics_as_a_thread(cluster, root, undisturbed, tmp_path):
    """The job of compute_metrics submits one job for each of its workers."""
    folder = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    for name in ("metrics/sns.nc", "metrics/sns_windows.csv"):
        (folder / SYSTEM / name).unlink()
    by_jobs = Submitter(cluster, root)
    dask = "{scheduler: slurm, workers: 1, memory: 1000, options: {queue: others, walltime: '00:05:00'}}"
    by_jobs.overlay = f"{OVERLAY}metrics: {{dask: {dask}}}\n"
    status, said = by_jobs.call(folder, str(SYSTEM / "metrics/sns_windows.csv"))
    assert status == 0, said
    (worker,) = [job for job in cluster.jobs() if job["JobName"] == "sns_dask"]
    assert (worker["Partition"], worker["WorkDir"], worker["TimeLimit"]) == ("others", str(folder), "00:05:00")
    assert [stage for stage, *_ in stages(folder)] == ["compute_metrics"]
    assert_same(folder, undisturbed, ["metrics/sns.nc", "metrics/sns_windows.csv"])


@pytest.fixture(scope="module")
def disturbed(submitter, undisturbed, tmp_path_factory):
    """Two trainings at once: one is cancelled, one is put back into the queue. Maps the last word of SLURM's command to
    (folder, process, watch, job number)."""
    with contextlib.ExitStack() as stack:
        jobs = {}
        for words in (("scancel",), ("scontrol", "requeue")):
            folder = without_surrogate(undisturbed, tmp_path_factory.mktemp(words[-1]) / "run")
            watch = stack.enter_context(Watch(folder))
            process = stack.enter_context(submitter.started(folder, MODEL, stops_at=2))
            wait_for(at_rest(folder, watch), process)
            (job,) = submitter.jobs(folder)
            submitter.cluster.call(*words, job["JobId"])
            jobs[words[-1]] = (folder, process, watch, job["JobId"])
        yield jobs


def test_a_cancelled_job_is_reported_and_submitted_again(disturbed, submitter, undisturbed):
    folder, process, watch, number = disturbed["scancel"]
    assert process.wait(200) == 0, (folder / "log").read_text()
    assert f"SLURM-job '{number}' failed, SLURM status is: 'CANCELLED'" in (folder / "log").read_text()
    assert [job["JobState"] for job in submitter.jobs(folder)] == ["CANCELLED", "COMPLETED"]
    assert watch.steps == sorted(watch.steps), "the second job began at the first step"
    assert_same(folder, undisturbed)


def test_a_preempted_job_continues_from_its_checkpoint_under_the_same_number(disturbed, submitter, undisturbed):
    """`scontrol requeue` puts the job back into the queue, as preemption does if PreemptMode is REQUEUE."""
    folder, process, watch, number = disturbed["requeue"]
    assert process.wait(200) == 0, (folder / "log").read_text()
    (job,) = submitter.jobs(folder)
    assert (job["JobId"], job["Restarts"], job["JobState"]) == (number, "1", "COMPLETED")
    assert watch.steps == sorted(watch.steps), "the job began at the first step again"
    assert_same(folder, undisturbed)


def test_a_killed_snakemake_leaves_its_job_and_the_next_call_completes(
    submitter, asks_for_gres, untrained, undisturbed
):
    """After the kill, the test cancels the remaining jobs and repeats the call, as the README advises.

    The second call uses the profile for a cluster that expects a named partition and GPUs as gres.
    """
    with Watch(untrained) as watch:
        with submitter.started(untrained, MODEL, stops_at=2) as process:
            wait_for(at_rest(untrained, watch), process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        (orphan,) = submitter.jobs(untrained)
        assert orphan["JobState"] == "RUNNING", "jobs outlive the call that submitted them"
        submitter.cluster.call("scancel", "--name", orphan["JobName"])
        status, said = submitter.call(untrained, MODEL)
        assert status != 0 and "--unlock" in said
        assert submitter.call(untrained, MODEL, flags=("--unlock",))[0] == 0
        status, said = asks_for_gres.call(untrained, MODEL)
        assert status == 0, said
    cancelled, second = submitter.jobs(untrained)
    assert (cancelled["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    assert (second["Partition"], second["TresPerNode"]) == ("others", "gres:gpu:1") and "TresPerJob" not in second
    # The cancelled job may still hold the first of the three GPUs.
    job, gpu, *_ = stages(untrained)[-1][1:]
    assert job == second["JobId"] and gpu in ("0", "1", "2"), "the training got no GPU"
    assert watch.steps == sorted(watch.steps), "the second job began at the first step"
    assert_same(untrained, undisturbed)


def test_a_training_past_its_limit_is_submitted_again_and_continues_from_its_checkpoint(
    stalled, submitter, undisturbed
):
    folder, process, watch, reached = stalled
    assert process.wait(300) == 0, (folder / "log").read_text()
    first, second = submitter.jobs(folder)
    assert (first["JobState"], second["JobState"]) == ("TIMEOUT", "COMPLETED")
    assert second["TimeLimit"] == "04:00:00", "the second attempt has twice the rule's limit"
    assert f"SLURM-job '{first['JobId']}' failed, SLURM status is: 'TIMEOUT'" in (folder / "log").read_text()
    assert watch.steps == sorted(watch.steps) and watch.steps[-1] > reached > 0, (
        "the second job began at the first step"
    )
    assert_same(folder, undisturbed)


def test_a_training_over_two_nodes_learns_the_model_of_one_process(over_nodes, undisturbed, root, tmp_path):
    """The training is one job of two nodes. On each node, `srun` starts a torchrun with one process."""
    alone, folder = (without_surrogate(undisturbed, tmp_path / name) for name in ("alone", "nodes"))
    short = OVERLAY.replace("steps: 100", "steps: 12, log_every: 4")
    assert snakemake(root, alone, MODEL, overlay=short).returncode == 0
    over_nodes.overlay = short.replace("device: cpu", "device: cpu, devices: 2")
    status, said = over_nodes.call(folder, MODEL)
    assert status == 0, said
    (job,) = over_nodes.jobs(folder)
    assert (job["NumNodes"], job["NumTasks"], job["TresPerNode"]) == ("2", "2", "gres:gpu:1")
    assert json.loads((folder / MODEL).with_suffix(".json").read_text())["provenance"]["processes"] == 2
    (by_one, _), (by_two, _) = (read_tensors(place / MODEL) for place in (alone, folder))
    assert all(torch.allclose(by_one[name], by_two[name], rtol=0, atol=1e-3) for name in by_one)
