"""Other calls of the workflow: by its path alone, from a copy, from an address, with very many files, and stopped."""

import contextlib
import functools
import http.server
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import warm_python
from snakemake.resources import GroupResources
from snakemake.shell import shell
from snakemake_calls import SYSTEM, command, copy_project, planned, snakemake, started, wait_for
from test_reruns import merged

from sns_workflow import command as commands
from sns_workflow.failures import (
    KILLED,
    HideCommands,
    describe_failures,
    describe_stop,
    print_end,
    stop_with_the_terminal,
)
from sns_workflow.jobs import graph_of_jobs


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


def call_from_another_workflow(root: Path, folder: Path, address: str, more: str = ""):
    """A dry run of a workflow in `folder` that has this one as a module; `more`: further lines of the module."""
    (folder / "Snakefile").write_text(f"""
configfile: "{root}/config/config.yaml"
configfile: "{root}/config/smoke.yaml"

module sns:
    snakefile: "{address}/Snakefile"
    config: config
    {more}

use rule * from sns as sns_*
""")
    words = ["--cores", "1", "--dry-run", "--", "results/smoke/report.html"]
    path = {**warm_python.environment(), "PYTHONPATH": str(root)}
    words = [warm_python.executable(), "-m", "snakemake", *words]
    return subprocess.run(words, cwd=folder, env=path, capture_output=True, text=True, timeout=200)


def test_another_workflow_may_use_this_one_from_an_address(root, tmp_path):
    """There is no folder beside the Snakefile then: the packages are those that are installed."""
    with served(root) as address:
        call = call_from_another_workflow(root, tmp_path, address)
    assert call.returncode == 0, call.stdout + call.stderr
    assert "sns_train_model" in call.stdout + call.stderr and "sns_plot_fields" in call.stdout + call.stderr


def test_another_workflow_may_use_this_one_twice(root, tmp_path):
    """Each instance has a configuration of its own, so both make files of their own."""
    (tmp_path / "Snakefile").write_text(f"""
configfile: "{root}/config/config.yaml"
configfile: "{root}/config/smoke.yaml"

module first:
    snakefile: "{root}/Snakefile"
    config: config

module second:
    snakefile: "{root}/Snakefile"
    config: {{**config, "seed": 1, "results": "elsewhere"}}

use rule * from first as first_*
use rule * from second as second_*
""")
    words = [warm_python.executable(), "-m", "snakemake", "--cores", "1", "--dry-run", "--quiet", "reason", "--"]
    words += [f"{folder}/smoke/kolmogorov/models/pointwise.safetensors" for folder in ("results", "elsewhere")]
    variables = warm_python.environment()
    call = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200)
    said = call.stdout + call.stderr
    assert call.returncode == 0, said
    for name, folder in (("first", "results"), ("second", "elsewhere")):
        made = re.findall(rf"^rule {name}_(\w+):\n(?:    input: .*\n)?    output: {folder}/", said, re.M)
        assert sorted(made) == ["shard_dataset", *3 * ["simulate_trajectories"], "train_model"], said


@pytest.mark.parametrize(
    ("more", "folder"), [('prefix: "a/"', "a/results"), ('replace_prefix: {"results/": "b/"}', "b")]
)
def test_the_prefix_of_a_module_is_refused_with_the_way_out(root, tmp_path, more, folder):
    call = call_from_another_workflow(root, tmp_path, str(root), more)
    line = next(line for line in call.stderr.splitlines() if line.startswith("Configuration: "))
    assert call.returncode == 1 and line.endswith(f"give the module's config `results: {folder}`"), call.stderr


CONDA = """\
#!/usr/bin/env bash
# Stands for conda: an environment is a folder whose `python` notes its calls and becomes the tests' interpreter.
case "$*" in
    --version) echo conda 26.1.0 ;;
    "info --json") echo '{{"conda_prefix": "{folder}/conda", "platform": "linux-64"}}' ;;
    "config --get channel_priority --json") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
    "env create"*)
        prefix=$(sed 's/.*--prefix //; s/"//g' <<< "$*")
        mkdir -p "$prefix/bin"
        printf '#!/bin/sh\\necho "$@" >> {folder}/calls\\nexec {python} "$@"\\n' > "$prefix/bin/python"
        chmod +x "$prefix/bin/python" ;;
    "clean "*) ;;
    *) exit 1 ;;
esac
"""


def test_with_conda_jobs_use_the_python_of_their_environment_and_the_code_of_the_clone(root, tmp_path, monkeypatch):
    """Environments come from channels that a test cannot reach, so a program of that name makes an empty one."""
    programs = tmp_path / "conda/bin"
    programs.mkdir(parents=True)
    (programs / "conda").write_text(CONDA.format(folder=tmp_path, python=warm_python.executable()))
    (programs / "conda").chmod(0o755)
    (programs / "activate").write_text('PATH="$1/bin:$PATH"\n')
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    words = command(root, tmp_path, str(SYSTEM / "data/test.nc"), python=warm_python.executable())
    words[-2:-2] = ["--sdm", "conda"]
    variables = warm_python.environment()
    call = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
    assert call.returncode == 0, call.stdout + call.stderr
    (line,) = (tmp_path / "calls").read_text().splitlines()
    assert "sns_core simulate_trajectories" in line and (tmp_path / SYSTEM / "data/test.nc").exists()
    (described,) = (tmp_path / ".snakemake/conda").glob("*.yaml")
    assert described.read_text() == (root / "envs/sns.yaml").read_text()


def test_without_a_shared_file_system_each_job_declares_all_that_it_reads(root, tmp_path):
    """A storage hands out declared inputs alone, so the shards are named beside the manifest. Settings keep their names of
    files, and the stage hears where the copies lie. tests/workflow/try_storage.sh runs such jobs in empty folders."""
    pytest.importorskip("snakemake_storage_plugin_fs")
    prefix = tmp_path / "store"
    flags = ("--default-storage-provider", "fs", "--default-storage-prefix", str(prefix), "--shared-fs-usage", "none")
    flags = (*flags, "--local-storage-prefix", "copies", "--dry-run", "--printshellcmds", "--quiet", "progress")
    result = snakemake(root, tmp_path, str(SYSTEM / "calibrations/sns.json"), flags=flags)
    assert result.returncode == 0, result.stdout
    jobs = {text.split(":")[0]: text for text in re.split(r"^rule ", result.stdout, flags=re.M)[1:]}
    for rule, files in (("shard_dataset", "output"), ("train_model", "input"), ("calibrate_refinement", "input")):
        line = re.search(rf"^    {files}: (.*)", jobs[rule], re.M)[1]
        assert line.count("shards/train_") == 2 and "shards/test_0001.npy" in line, line
        assert f"--files-below copies/fs{prefix}/" in jobs[rule], jobs[rule]


def test_jobs_in_a_group_add_up_what_they_ask_for(root, tmp_path, monkeypatch):
    """A resource that is a text, or of another kind from job to job, would end a call with `--groups`."""
    monkeypatch.chdir(tmp_path)
    with graph_of_jobs(str(root / "Snakefile"), merged(root), ["all"]) as graph:
        jobs = [job for job in graph.jobs if job.resources.get("runtime") and job.rule.name != "record_provenance"]
        layers, limits = [[job] for job in jobs], graph.workflow.global_resources
        total = GroupResources.basic_layered(layers, limits, False, ["runtime"], ["runtime"])
        minutes, megabytes = ([job.resources.get(name) for job in jobs] for name in ("runtime", "mem_mb"))
    assert len(jobs) > 40 and total["runtime"] == sum(minutes) and total["mem_mb"] == max(megabytes)


def test_ten_thousand_segments_reach_their_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in warm_python.environment().items():
        monkeypatch.setenv(name, value)
    module = f"{warm_python.executable()} -m sns_core"
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
        call=f"{module} plot_fields",
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
    params.dask, params.call = "{}", f"{module} compute_metrics"
    with pytest.raises(subprocess.CalledProcessError):
        shell(commands.command("compute_metrics"), params=params, threads=1, log="metrics.log", **files)
    text = Path("metrics.log").read_text().strip().splitlines()
    assert text[-1].startswith("compute_metrics: ") and "missing" in text[-1], text[-3:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "a terminal that closes"])
def test_a_stopped_call_ends_with_one_line(root, tmp_path, number):
    longer = "models: {pointwise: {training: {steps: 30000}}}"
    model = SYSTEM / "models/pointwise.safetensors"
    with started(root, tmp_path, str(model), overlay=longer, warm=True) as process:
        wait_for(lambda: list(tmp_path.glob(f"{SYSTEM}/models/.work/*/checkpoint.safetensors")), process)
        os.killpg(process.pid, number)
        assert process.wait(100) != 0
    text = (tmp_path / "log").read_text()
    line = f"Stopped: train_model of {model}. The same call again goes on from what is done."
    assert line in text.splitlines(), text
    assert "Traceback" not in text and "RuleException" not in text
    assert len(text[text.index("Terminating processes") :].splitlines()) < 10, text
    repeated = snakemake(root, tmp_path, str(model))
    assert repeated.returncode == 0, repeated.stdout


def test_a_failed_job_is_described_by_the_end_of_its_log_and_without_its_command(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("\n".join(f"line {index}" for index in range(50)))
    job = SimpleNamespace(rule=SimpleNamespace(name="train_model"), output=["a.safetensors"], log=[log])
    lost = SimpleNamespace(rule=SimpleNamespace(name="plot_error"), output=["b.png"], log=[tmp_path / "none.log"])
    inspection = SimpleNamespace(rule=SimpleNamespace(name="verify"), output=[], log=[])
    text = describe_failures([lost, job, inspection])
    assert "train_model failed to make a.safetensors" in text and "    line 49" in text and "line 30" not in text
    assert "plot_error failed to make b.png\nits log is empty" in text and "verify" not in text
    assert text.endswith("Once the cause is mended, the same call again goes on from what is done.")
    commands_of_snakemake = "RuleException:\nCalledProcessError in file x: Command 'python -m sns_core plot_error'"
    verification = commands_of_snakemake.replace("sns_core plot_error", "sns_workflow.inspect_run verify")
    texts = (commands_of_snakemake, verification, commands_of_snakemake.replace("sns_core", "mine"), "other")
    shown = [HideCommands().filter(logging.makeLogRecord({"msg": text})) for text in texts]
    assert shown == [False, False, True, True]


def test_a_job_that_was_killed_at_work_is_said_to_be_killed(tmp_path):
    log = tmp_path / "train.log"
    job = SimpleNamespace(rule=SimpleNamespace(name="train_model"), output=["a.safetensors"], log=[log])
    at_work = "training pointwise: 443/100000, 2.3 per second, 723.2 min left\n"
    log.write_text(at_work)
    assert "    training pointwise: 443" in describe_failures([job]) and f"why it ended: {KILLED}" in describe_failures(
        [job]
    )
    for text in (
        f"{at_work}train_model: the loss became nan",
        "Traceback\ntrain_model: KeyError: 'x'\nlast words of torch",
    ):
        log.write_text(text)
        assert KILLED not in describe_failures([job])


@pytest.fixture
def handler_of_hangups():
    """The handler of SIGHUP is set back after the test."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_does_not_end_the_end_of_a_call_in_an_error(monkeypatch):
    def closed(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=closed, flush=closed))
    print_end(SimpleNamespace(failed=[], running=[]))
    print_end(None)


def test_a_terminal_that_closes_stops_a_call_unless_it_ignores_that(handler_of_hangups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_with_the_terminal()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "as under nohup"
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop_with_the_terminal()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(1)


@pytest.mark.parametrize("name", ["verify", "inspect", "seed0_verify"])
def test_the_end_of_a_call_repeats_nothing_of_a_rule_that_makes_no_file(name, tmp_path):
    log = tmp_path / "inspection.log"
    log.write_text("no file fits the pattern")
    assert describe_failures([SimpleNamespace(rule=SimpleNamespace(name=name), output=[], log=[log])]) == ""


def test_a_call_without_jobs_prints_nothing():
    assert describe_stop([]) == ""
