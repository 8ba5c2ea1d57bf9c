"""Bits flipped and bytes cut in every file that a run makes: each reader names the file and sets it aside, or `verify` does.

The changed file keeps its time, as on a failing disk.
"""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from helpers import equal
from snakemake_calls import SYSTEM
from test_reruns import merged

import sns_core
from sns_core.__main__ import main
from sns_core.collection import collect_run
from sns_core.errors import DamagedFile
from sns_core.files import record_path
from sns_core.record import FORMAT
from sns_workflow.inspect_run import judge, judge_all
from sns_workflow.jobs import Job, expected_jobs

# Inputs of rules that only order jobs: the stage does not read them.
AWAITED = {("record_provenance", "metrics.csv"), ("plot_spin_up", "manifest.json")}
UNREAD = ("logs", "provenance", ".work")  # folders: what jobs say, what they record, what they go on from


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """A copy of the finished run that is the working directory of each test; the times of its files are backup."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("damage") / "run"))


@pytest.fixture(scope="module")
def jobs(root, run) -> list[Job]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run)
        return expected_jobs(str(root / "Snakefile"), merged(root), ["all"])


@pytest.fixture
def readers(jobs, run, monkeypatch) -> dict[Path, list[Job]]:
    """File of the run -> a job of each stage that reads it. Shards are read with their manifest."""
    monkeypatch.chdir(run)
    readers = defaultdict(dict)
    for job in jobs:
        for path in job.inputs:
            if (job.stage, path.name) not in AWAITED:
                readers[path][job.stage] = job
    of_manifest = readers[SYSTEM / "shards/manifest.json"]
    for path in (run / SYSTEM / "shards").glob("*.npy"):
        stage = "diagnose_denoiser" if path.name.startswith("test") else "train_model"
        readers[path.relative_to(run)][stage] = of_manifest[stage]
    files = [path.relative_to(run) for path in (run / "results").rglob("*") if path.is_file()]
    made = [path for path in files if not set(UNREAD) & set(path.parts)]
    return {path: list(readers[path].values()) for path in sorted(made)}


def words(job: Job) -> list[str]:
    return [job.stage, "--code", job.code, "--log", "job.log", "--from-json", json.dumps(job.arguments)]


def flip(content: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    changed[generator.integers(len(changed))] ^= 1 << generator.integers(8)
    return bytes(changed)


def cut(content: bytes, generator: np.random.Generator) -> bytes:
    return content[: generator.integers(len(content))]


def spoil(path: Path, change, generator: np.random.Generator) -> None:
    """Change the content of a file and keep its time."""
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(change(content, generator))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def restore(path: Path, backup: Path) -> None:
    """Undo what a test and a stage did to a file, and to a manifest that was set aside with its shard."""
    for damaged in Path("results").rglob("*.damaged"):
        os.replace(damaged, damaged.with_suffix(""))
    shutil.copy2(backup, path)


def test_a_changed_file_is_named_by_each_stage_that_reads_it(readers, tmp_path, capfd):
    generator, calls, unnamed = np.random.default_rng(1), 0, []
    assert {job.stage for job in readers[SYSTEM / "calibrations/sns.json"]} == {
        "diagnose_denoiser", "measure_cost", "rollout_ensemble", "rollout_segment", "plot_calibration",
    }  # fmt: skip
    for path, jobs in readers.items():
        backup = shutil.copy2(path, tmp_path / "backup")
        for job in jobs:
            for change in (flip, flip, cut):
                spoil(path, change, generator)
                code = main(words(job))
                last = (capfd.readouterr().err.strip().splitlines() or ["no word"])[-1]
                calls += 1
                if code != 1 or f"{path}: " not in last or "set aside as" not in last or path.exists():
                    unnamed.append(f"{job.stage} of {path}: {last}")
                restore(path, backup)
    assert not unnamed, "\n".join(unnamed)
    assert calls > 300, calls


def test_verify_names_a_changed_file_that_no_stage_reads(readers, jobs, tmp_path):
    generator = np.random.default_rng(2)
    unread = {path.suffix: path for path, jobs_of_path in readers.items() if not jobs_of_path}
    assert set(unread) >= {".pdf", ".mp4", ".csv", ".html", ".safetensors"}
    makers = {path: job for job in jobs for path in job.outputs}
    for path in unread.values():
        backup = shutil.copy2(path, tmp_path / "backup")
        spoil(path, flip, generator)
        judge_all(jobs, thorough=True)
        restore(path, backup)
        assert makers[path].state == "damaged" and str(path) in makers[path].why


@pytest.mark.parametrize(
    "name",
    [
        "kolmogorov/shards/manifest.json",
        "kolmogorov/calibrations/sns.json",
        "provenance.json",
        "kolmogorov/metrics.csv",
    ],
)
def test_a_changed_file_is_neither_loaded_nor_collected(readers, tmp_path, name):
    folder, generator = Path("results/smoke"), np.random.default_rng(4)
    backup = shutil.copy2(folder / name, tmp_path / "backup")
    spoil(folder / name, flip, generator)
    try:
        with pytest.raises(DamagedFile, match=name):
            collect_run(run=folder, output=tmp_path / "collected" / "given.json", megabytes=100.0)
        if name != "kolmogorov/metrics.csv":
            with pytest.raises(DamagedFile, match=name):
                sns_core.load(folder, "sns", device="cpu")
    finally:
        restore(folder / name, backup)


def test_verify_survives_a_changed_record(readers, jobs):
    job = next(job for job in jobs if job.stage == "aggregate_metrics")
    generator, record = np.random.default_rng(5), record_path(job.outputs[0])
    content = record.read_bytes()
    for change in (flip,) * 20 + (cut,) * 5:
        spoil(record, change, generator)
        judge(job, [])
        assert job.state in ("done", "stale", "unrecorded", "damaged") and "\n" not in job.why
    record.write_text(json.dumps({"format": FORMAT}))
    judge(job, [])
    record.write_bytes(content)
    assert job.state == "unrecorded"


def test_a_changed_record_changes_no_number(readers, tmp_path, capfd):
    source = SYSTEM / "metrics/reference.nc"
    job = next(job for job in readers[source] if job.stage == "aggregate_metrics")
    generator, record, backup = np.random.default_rng(3), record_path(source), shutil.copy2(source, tmp_path)
    content = record.read_bytes()
    before = [shutil.copy2(path, tmp_path / path.name) for path in job.outputs]
    for change in (flip,) * 6 + (cut,):
        spoil(record, change, generator)
        if main(words(job)):
            assert f"{source}: not what its job wrote" in capfd.readouterr().err
        restore(source, backup)
        record.write_bytes(content)
        assert all(equal(path, copy) for path, copy in zip(job.outputs, before, strict=True))
