"""Other calls of the workflow: by its path alone, from a copy, from an address, with very many files, and stopped."""

import contextlib
import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.shell import shell
from snakemake_calls import SYSTEM, command, environment, planned, snakemake, started, wait_for

from sns_workflow import command as commands
from sns_workflow.failures import describe_stop

PROJECT = ("Snakefile", "workflow", "sns_core", "sns_workflow", "config", "profiles", "envs")


def copy_project(root: Path, folder: Path) -> Path:
    for name in PROJECT:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def test_called_by_its_path_without_the_environment_activated(root, tmp_path):
    """Jobs use Snakemake's interpreter and the code of the clone. Another interpreter or clone reruns nothing."""
    bare = {"PATH": "/usr/bin:/bin"}
    words = command(root, tmp_path, str(SYSTEM / "data/test.nc"))
    call = subprocess.run(words, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=300)
    assert call.returncode == 0, call.stdout + call.stderr
    words[-1] = "verify"
    verify = subprocess.run(words, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=300)
    assert "1 done" in verify.stdout + verify.stderr
    link = tmp_path / "elsewhere"
    link.symlink_to(
        Path(sys.executable).parents[1]
    )  # the link is to the whole environment, where Python looks for its packages
    linked_words = [str(link / Path(sys.executable).parent.name / "python"), *words[1:-1], str(SYSTEM / "data/test.nc")]
    call = subprocess.run(linked_words, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=300)
    assert call.returncode == 0 and "Nothing to be done" in call.stdout + call.stderr


def test_a_moved_checkout_with_its_results_is_as_it_was(root, finished, tmp_path):
    """No absolute path is part of a job's settings."""
    clone = copy_project(root, tmp_path)
    shutil.copytree(finished / "results", clone / "results")
    shutil.copytree(finished / ".snakemake", clone / ".snakemake")
    assert planned(clone, clone, "all") == set()
    verify = snakemake(clone, clone, "verify")
    assert verify.returncode == 0, verify.stdout


@contextlib.contextmanager
def served(folder: Path):
    """Yield the address of a web server that serves the files of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_workflow_may_use_this_one_from_an_address(root, tmp_path):
    """No folder lies beside this Snakefile, so jobs use the installed packages."""
    with served(root) as address:
        (tmp_path / "Snakefile").write_text(f"""
configfile: "{root}/config/config.yaml"
configfile: "{root}/config/smoke.yaml"

module sns:
    snakefile: "{address}/Snakefile"
    config: config

use rule * from sns as sns_*
""")
        words = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--", "results/smoke/report.html"]
        path = {**environment(), "PYTHONPATH": str(root)}
        call = subprocess.run(words, cwd=tmp_path, env=path, capture_output=True, text=True, timeout=200)
    assert call.returncode == 0, call.stdout + call.stderr
    assert "sns_train_model" in call.stdout + call.stderr and "sns_plot_fields" in call.stdout + call.stderr


def test_ten_thousand_segments_reach_their_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segments = {
        method: [f"results/long/kolmogorov/rollouts/{method}/{group}-{group}/segment_0000.nc" for group in range(5000)]
        for method in ("solver", "sns")
    }
    values = {
        "segments": segments, "metrics": {"solver": "solver.nc"}, "labels": {"solver": r"$\\sigma_{max}$ {x}"}, "steps": [0],
        "member": 0, "dpi": 60,
    }  # fmt: skip
    params = SimpleNamespace(
        settings=commands.settings("plot_fields", values)(None),
        code="0",
        call=f"{commands.python(False)} -m sns_core plot_fields",
    )
    files = {"input": SimpleNamespace(reference="reference.nc"), "output": SimpleNamespace(output="fields.png")}
    assert len(params.settings) > 600_000
    with pytest.raises(subprocess.CalledProcessError):
        shell(commands.command("plot_fields"), params=params, threads=1, log="fields.log", **files)
    text = Path("fields.log").read_text().strip().splitlines()
    assert text[-1].startswith("plot_fields: ") and "missing" in text[-1], text[-3:]

    names = [path for paths in segments.values() for path in paths]
    files["input"] = SimpleNamespace(segments=names, solver=names, reference="reference.nc", manifest="manifest.json")
    files["output"] = SimpleNamespace(output="metrics.nc", output_windows="windows.csv")
    params.settings = commands.settings(
        "compute_metrics", {"window": 1, "shells": [1, 2], "map_lags": 1, "user_metrics": []}
    )(None)
    params.dask, params.call = "{}", f"{commands.python(False)} -m sns_core compute_metrics"
    with pytest.raises(subprocess.CalledProcessError):
        shell(commands.command("compute_metrics"), params=params, threads=1, log="metrics.log", **files)
    text = Path("metrics.log").read_text().strip().splitlines()
    assert text[-1].startswith("compute_metrics: ") and "missing" in text[-1], text[-3:]


def test_a_stopped_call_ends_with_one_line(root, tmp_path):
    longer = "models: {pointwise: {training: {steps: 30000}}}"
    model = SYSTEM / "models/pointwise.safetensors"
    with started(root, tmp_path, str(model), overlay=longer) as process:
        wait_for(lambda: list(tmp_path.glob(f"{SYSTEM}/models/.work/*/checkpoint.safetensors")), process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(100) != 0
    text = (tmp_path / "log").read_text()
    line = f"Stopped: train_model of {model}. The same call again goes on from what is done."
    assert line in text.splitlines(), text
    assert "Traceback" not in text and "RuleException" not in text
    assert len(text[text.index("Terminating processes") :].splitlines()) < 10, text
    repeated = snakemake(root, tmp_path, str(model))
    assert repeated.returncode == 0, repeated.stdout


def test_a_call_without_jobs_prints_nothing():
    assert describe_stop([]) == ""
