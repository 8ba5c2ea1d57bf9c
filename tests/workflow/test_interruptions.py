"""Real faults of the workflow: a kill at every stage, two calls at once, lost memory, damaged files, a wrong clock.

After each fault there is one clear message, and the next call makes the results of the undisturbed run, bit for bit.
"""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from helpers import equal
from snakemake_calls import SYSTEM, planned, snakemake, started, wait_for

RESULTS = ["shards/manifest.json", "models/pointwise.safetensors", "models/sns_residual.safetensors", "models/sns_residual.csv",
           "calibrations/sns.json", "rollouts/sns/0-1/segment_0000.nc", "rollouts/sns/0-1/segment_0001.nc", "metrics/sns.nc",
           "metrics/sns_windows.csv", "metrics/reference.nc", "data/train.nc", "windows.csv"]  # fmt: skip
FEW = "use: {methods: [solver, pointwise, sns]}"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def assert_same(folder: Path, finished: Path, names=RESULTS) -> None:
    for name in names:
        assert equal(folder / SYSTEM / name, finished / SYSTEM / name), name


def at_work(folder: Path, pattern: str):
    """Return whether a job has marked such a file as its work."""
    return lambda: list(folder.glob(f"{SYSTEM}/{pattern}.running"))


def test_killed_at_every_stage_the_run_completes_with_the_same_bits(root, finished, tmp_path):
    moments = [
        ("data/provenance/train.nc", signal.SIGKILL), ("shards/provenance/manifest.json", signal.SIGKILL),
        ("models/.work/*/checkpoint.safetensors", signal.SIGKILL), ("models/provenance/sns_residual.safetensors", signal.SIGTERM),
        ("calibrations/provenance/sns.json", signal.SIGKILL),
        ("rollouts/sns/0-1/provenance/segment_0001.nc", signal.SIGKILL), ("metrics/provenance/sns.nc", signal.SIGKILL),
    ]  # fmt: skip
    for pattern, number in moments:
        marked = at_work(tmp_path, pattern)

        def reached(marked=marked, pattern=pattern):
            return marked() or list(tmp_path.glob(f"{SYSTEM}/{pattern}"))

        with started(root, tmp_path, "metrics", overlay=FEW, warm=True) as process:
            wait_for(reached, process)
            os.killpg(process.pid, number)
            process.wait()
        unlocked = snakemake(root, tmp_path, "metrics", flags=("--unlock",), overlay=FEW)
        assert unlocked.returncode == 0, unlocked.stdout
    resumed = snakemake(root, tmp_path, "metrics", overlay=FEW)
    assert resumed.returncode == 0, resumed.stdout
    assert_same(
        tmp_path, finished, [name for name in RESULTS if name != "windows.csv"]
    )  # windows.csv has the rows of all methods
    assert not list(tmp_path.rglob("*.part")), "a killed job leaves an unfinished file behind"


def test_a_second_call_at_the_same_time_ends_with_a_message_and_the_first_completes(root, finished, run):
    longer = "models: {pointwise: {training: {steps: 100}}}"
    at_work_on_model = at_work(run, "models/provenance/pointwise.safetensors")
    with started(root, run, str(SYSTEM / "models/pointwise.safetensors"), overlay=longer) as process:
        wait_for(at_work_on_model, process)
        os.killpg(process.pid, signal.SIGSTOP)  # the first call stands still until the others have ended
        assert at_work_on_model(), "the first call ended before the second was made"
        status = snakemake(root, run, "status", flags=("--nolock",), overlay=longer)
        second = snakemake(root, run, "models", overlay=longer)
        os.killpg(process.pid, signal.SIGCONT)
        assert status.returncode == 0, status.stdout
        line = next(line for line in status.stdout.splitlines() if line.startswith("running "))
        assert "models/pointwise.safetensors" in line and ("min left" in line or "starting" in line), line
        assert second.returncode != 0 and "Directory cannot be locked" in second.stdout
        assert process.wait(400) == 0, (run / "log").read_text()
    repeated = snakemake(root, run, str(SYSTEM / "models/pointwise.safetensors"))
    assert repeated.returncode == 0, repeated.stdout
    assert_same(run, finished, ["models/pointwise.safetensors"])


def test_without_snakemakes_memory_nothing_reruns_and_verify_still_finds_changes(root, finished, run):
    shutil.rmtree(run / ".snakemake")
    repeated = snakemake(root, run, "all")
    assert repeated.returncode == 0 and "Nothing to be done" in repeated.stdout
    assert "results of this configuration" in snakemake(root, run, "verify").stdout
    shutil.rmtree(run / ".snakemake")
    change = "models: {sns_residual: {training: {learning_rate: 1.0e-3}}}"
    assert planned(root, run, "all", overlay=change) <= {"all"}, (
        "Snakemake has forgotten the settings; the records of verify still hold them"
    )
    verified = snakemake(root, run, "verify", overlay=change)
    assert verified.returncode != 0
    assert (
        "stale       results/smoke/kolmogorov/models/sns_residual.safetensors: --spec was 0.002, not 0.001"
        in verified.stdout
    )
    assert "(training.learning_rate)" in verified.stdout
    assert "metrics/sns.nc: results/smoke/kolmogorov/" in verified.stdout and "is stale" in verified.stdout
    assert "metrics/pointwise.nc" not in verified.stdout
    assert "snakemake --cores all --forcerun" in verified.stdout


def test_verify_finds_files_that_are_missing_altered_unrecorded_or_made_by_other_code(root, run):
    assert snakemake(root, run, "verify").returncode == 0
    folder = run / SYSTEM
    flipped = folder / "models/sns_white.safetensors"
    content, status = bytearray(flipped.read_bytes()), flipped.stat()
    content[-5] ^= 1
    flipped.write_bytes(content)
    os.utime(
        flipped, ns=(status.st_atime_ns, status.st_mtime_ns)
    )  # restore the date, which a failing disk does not change
    (folder / "rollouts/sns/0-1/segment_0001.nc").unlink()
    record = folder / "rollouts/acdm/0-1/provenance/segment_0000.nc.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fingerprint": "of another time"}))
    shard = next((folder / "shards").glob("train_0000.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (folder / "figures/provenance/error.png.json").unlink()
    verified = snakemake(root, run, "verify")
    assert verified.returncode != 0
    for line in (
        "damaged     results/smoke/kolmogorov/models/sns_white.safetensors",
        "damaged     results/smoke/kolmogorov/shards/manifest.json",
        "missing     results/smoke/kolmogorov/rollouts/sns/0-1/segment_0001.nc",
        "stale       results/smoke/kolmogorov/rollouts/acdm/0-1/segment_0000.nc: the code of rollout_segment has changed",
        "unrecorded  results/smoke/kolmogorov/figures/error.png",
    ):
        assert line in verified.stdout, verified.stdout


def test_verify_names_the_call_that_makes_a_deleted_folder_again_and_calls_nothing_stale_for_it(root, run):
    shutil.rmtree(run / SYSTEM / "shards")
    assert "Nothing to be done" in snakemake(root, run, "all").stdout
    verified = snakemake(root, run, "verify")
    manifest = f"{SYSTEM}/shards/manifest.json"
    assert verified.returncode != 0 and f"missing     {manifest}" in verified.stdout
    assert f"make what is missing: snakemake --cores all -- {manifest}; then verify again" in verified.stdout
    assert "with the -s, --configfile and --config of this call, if it has any" in verified.stdout
    assert "stale" not in verified.stdout and "--forcerun" not in verified.stdout
    assert snakemake(root, run, manifest).returncode == 0
    repeated = snakemake(root, run, "verify")
    assert repeated.returncode == 0, repeated.stdout


@pytest.mark.parametrize(
    ("damaged", "forgotten", "target"),
    [
        (
            "models/pointwise.safetensors",
            "rollouts/pointwise/0-1/segment_0001.nc",
            "rollouts/pointwise/0-1/segment_0001.nc",
        ),
        ("shards/train_0001.npy", "models/pointwise.safetensors", "models/pointwise.safetensors"),
        ("calibrations/sns.json", "rollouts/sns/0-1/segment_0000.nc", "rollouts/sns/0-1/segment_0000.nc"),
        (
            "rollouts/sns/0-1/restart_0000.safetensors",
            "rollouts/sns/0-1/segment_0001.nc",
            "rollouts/sns/0-1/segment_0001.nc",
        ),
        ("rollouts/sns/0-1/segment_0000.nc", "metrics/sns.nc", "metrics/sns_windows.csv"),
    ],
)
def test_a_damaged_file_is_one_clear_line_and_the_next_call_completes(root, finished, run, damaged, forgotten, target):
    path = run / SYSTEM / damaged
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 5] ^= 16
    path.write_bytes(content)
    (run / SYSTEM / forgotten).unlink()
    # The flipped bit changes an input that Snakemake compares, so it may plan earlier jobs. Run only the reading job.
    rule = {"models": "train_model", "rollouts": "rollout_segment", "metrics": "compute_metrics"}[
        forgotten.split("/")[0]
    ]
    first = snakemake(root, run, str(SYSTEM / target), flags=("--allowed-rules", rule))
    assert first.returncode != 0
    line = next((line for line in first.stdout.splitlines() if "set aside as" in line), first.stdout)
    assert path.name in line and line.startswith(f"{rule}: ")
    repeated = snakemake(root, run, str(SYSTEM / target))
    assert repeated.returncode == 0, repeated.stdout
    assert_same(run, finished, [damaged, target] if "windows" not in target else [damaged])


def test_a_clock_set_back_ends_in_the_same_results(root, finished, run):
    """The clock was a day ahead when the first stages ran."""
    ahead = time.time() + 86400
    for path in (run / SYSTEM / "data").rglob("*"):
        os.utime(path, (ahead, ahead))
    assert snakemake(root, run, "models").returncode == 0
    assert "Nothing to be done" in snakemake(root, run, "models").stdout
    assert snakemake(root, run, "verify").returncode == 0
    assert_same(run, finished)
