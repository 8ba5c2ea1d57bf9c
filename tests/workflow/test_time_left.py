"""The time left of a run is told from what its jobs have taken, and a page shows what is there before the run ends."""

import json
import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from snakemake_calls import SYSTEM, snakemake

from sns_core.files import record_path, write_json
from sns_core.record import FORMAT, recorded, running_path
from sns_workflow.inspect_run import SILENCE, alive
from sns_workflow.jobs import Job
from sns_workflow.progress_page import history_of, write_page
from sns_workflow.time_left import START, sentence, time_left


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Return a function that makes jobs, each reading the result of the job before: (stage, state, seconds, words)."""
    monkeypatch.chdir(tmp_path)

    def made(*descriptions) -> list[Job]:
        chain = []
        for index, (stage, state, seconds, why) in enumerate(descriptions):
            output = Path(f"{index}.nc")
            if seconds is not None:
                record = {"format": FORMAT, "stage": stage, "fingerprint": "", "wall_seconds": seconds}
                write_json(record_path(output), {**record, "configuration": {}, "inputs": {}, "outputs": {}})
            before = [chain[-1].outputs[0]] if chain else []
            chain.append(Job(stage, {}, "", None, [output], before, state, why))
        return chain

    return made


def test_estimates_are_scaled_by_what_the_jobs_of_the_stage_have_taken(jobs):
    run = jobs(
        ("rollout_segment", "done", 30.0 - START, ""),
        ("rollout_segment", "missing", None, ""),
        ("train_model", "done", 5.0 - START, ""),
        ("train_model", "stale", 5.0, ""),
        ("compute_metrics", "missing", None, ""),
    )
    left = time_left(run, [10.0, 20.0, 10.0, 40.0, 2.0])
    # Rollouts take three times their estimate, trainings half of it; of metrics only the mean of all, 35 / 20, is known.
    assert left.work == pytest.approx(60 + 20 + 2 * 35 / 20) and left.chain == pytest.approx(left.work)
    assert (left.jobs, left.measured) == (3, 2)
    assert sentence(left, 2, "{:.1f} s".format) == (
        "about 83.5 s left on 2 cores (83.5 s of one core in 3 jobs, 83.5 s of them one after the other; measured on 2 jobs)"
    )


def test_jobs_that_do_not_wait_for_each_other_share_the_cores(jobs):
    run = jobs(*[("rollout_segment", "missing", None, "")] * 4)
    for job in run:
        job.inputs = []
    left = time_left(run, [10.0] * 4)
    assert (left.on(1), left.on(2), left.on(8)) == (40.0, 20.0, 10.0) and left.measured == 0
    assert "at the rates of `snakemake plan`" in sentence(left, 8, str)
    single = time_left(run[:1], [10.0])
    assert "10.0 left on 1 core (10.0 of one core in 1 job, 10.0 of them" in sentence(single, 1, str)


def test_a_running_job_is_believed_or_has_the_rest_of_its_estimate(jobs):
    run = jobs(
        ("train_model", "running", None, "training sns: 10/20, 3.0 per second, 2.5 min left"),
        ("train_model", "running", None, ""),
    )
    marker = running_path(run[1].outputs[0])
    write_json(marker, {})
    began = marker.stat().st_mtime - 30
    os.utime(marker, (began, began))
    assert time_left(run, [1000.0, 100.0]).work == pytest.approx(150 + 70, abs=5)


def test_a_job_that_touches_its_marker_began_when_the_marker_says(jobs):
    run = jobs(("train_model", "running", None, ""))
    write_json(running_path(run[0].outputs[0]), {"began": time.time() - 30})
    assert time_left(run, [100.0]).work == pytest.approx(70, abs=5)


def stage_of_a_file(*, output: Path) -> None:
    """A stage that makes one file."""


@pytest.fixture
def marker(tmp_path) -> tuple[Path, dict]:
    """(path, content) of the marker of a job of this process."""
    output = tmp_path / "model.safetensors"
    with recorded(stage_of_a_file, {"output": output}, "", None, time.monotonic):
        path = running_path(output)
        content = json.loads(path.read_text())
        output.write_text("")
    path.touch()
    return path, content


def test_a_job_whose_number_another_process_has_by_now_is_dead(marker):
    path, content = marker
    assert alive(path, content)
    assert not alive(path, {**content, "process_start": "1"}), "another process with the number of the job"
    assert alive(path, {key: value for key, value in content.items() if key != "process_start"})
    assert not alive(path, {**content, "pid": 2**22 + 1})


def test_a_job_on_another_host_is_alive_as_long_as_it_touches_its_marker(marker):
    path, content = marker
    content = {**content, "host": "node17"}
    assert alive(path, content)
    earlier = time.time() - SILENCE - 60
    os.utime(path, (earlier, earlier))
    assert not alive(path, content)
    assert alive(path, {key: content[key] for key in ("pid", "host", "log")}), "a marker of an earlier version"
    path.unlink()
    assert alive(path, content), "the job has just ended"


def test_a_job_at_work_touches_its_markers(tmp_path, monkeypatch):
    monkeypatch.setattr("sns_core.record.TOUCHED_EVERY", 0.01)
    output = tmp_path / "model.safetensors"

    with recorded(stage_of_a_file, {"output": output}, "", None, time.monotonic):
        os.utime(running_path(output), (0, 0))
        deadline = time.monotonic() + 20
        while not running_path(output).stat().st_mtime:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        output.write_text("")
    assert not running_path(output).exists()


def test_a_page_shows_jobs_curves_scores_and_figures_of_a_run_that_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("results/mine")
    for name in ("models/.work/abc/sns.csv", "models/done.csv"):
        path = folder / "flow" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"step": [10, 20], "loss": [1.0, 0.5], "validation": [1.1, 0.6]}).to_csv(path, index=False)
    (folder / "flow/metrics").mkdir()
    windows = {"window_spectrum_error": [0.1, 0.3], "kinetic_energy": [1.0, 1.0], "members_lost": [0, 3]}
    for method in ("pointwise", "sns", "dropped"):
        pd.DataFrame(windows).to_csv(folder / f"flow/metrics/{method}_windows.csv", index=False)
    (folder / "flow/figures").mkdir()
    for name in ("fields", "levels", "dropped"):
        (folder / f"flow/figures/{name}.png").write_bytes(b"picture")

    def training(name: str, state: str) -> Job:
        arguments = {"name": name, "spec": {"training": {"steps": 40}}}
        return Job("train_model", arguments, "", None, [folder / f"flow/models/{name}.safetensors"], [], state, "10/40")

    config = {"run": "mine", "use": {"systems": ["flow"]}}

    def making(stage: str, *names: str, state: str) -> Job:
        return Job(stage, {}, "", None, [folder / "flow" / name for name in names], [], state)

    run = [training("sns", "running"), training("done", "done"), training("later", "missing")]
    run += [
        making("compute_metrics", "metrics/pointwise.nc", "metrics/pointwise_windows.csv", state="done"),
        making("compute_metrics", "metrics/sns.nc", "metrics/sns_windows.csv", state="stale"),
        making("plot_fields", "figures/fields.png", state="done"),
        making("plot_levels", "figures/levels.png", state="stale"),
        making("plot_zonal", "figures/zonal.png", state="missing"),
    ]
    text = write_page(folder, config, run, "1 running, 1 done", "about 3 h left").read_text()
    assert "about 3 h left" in text and "<td>0.2</td>" in text and "<td>3</td>" in text
    assert text.count("data:image/png;base64,") == 3 and "sns.safetensors</code>: 10/40" in text
    assert "<td>pointwise</td>" in text and "<figcaption>fields</figcaption>" in text
    assert "<td>sns (stale)</td>" in text and "<figcaption>levels (stale)</figcaption>" in text
    assert "dropped" not in text, "results of another configuration"
    assert "A run that is not finished" in text
    finished = write_page(folder, config, run[1:2], "1 done", "nothing is left").read_text()
    assert "A finished run" in finished and "not finished" not in finished
    assert history_of(folder / "flow/models/sns.safetensors").parent.name == "abc"
    assert history_of(folder / "flow/models/later.safetensors") is None


def test_the_page_and_the_status_of_a_run_whose_end_is_missing(root, finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))
    (run / SYSTEM / "scorecard.csv").unlink()
    for target, words in (("progress", "page: results/smoke/progress.html"), ("status", "missing")):
        call = snakemake(root, run, target)
        assert call.returncode == 0 and words in call.stdout, call.stdout
        assert "left on 2 cores (" in call.stdout and "measured on" in call.stdout
    page = (run / "results/smoke/progress.html").read_text()
    assert "<code>score_methods</code>" in page and "figures" not in page.partition("<main>")[0]
    assert page.count("data:image/png") > 5, "the losses, and every figure"
