"""Any configuration either plans its run, or is refused in one line, quickly and in little memory.

Hypothesis draws changes of the smoke run's configuration: right, wrong or absurd values; keys that are deleted, misspelt
or moved. Draws are derandomised, so that the test gives the same answer on every machine.
"""

import copy
import datetime
import math
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_python
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sns_workflow import configuration
from sns_workflow.configuration import ConfigurationError, read
from sns_workflow.jobs import graph_of_jobs

ROOT = Path(__file__).parents[2]
SECONDS, MEGABYTES = 5.0, 500.0
PLANNED = 6  # Snakemake builds the graph of jobs of the first drawn configurations that are read
OPTIONS = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)


def smoke() -> dict:
    read_file = lambda name: yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())  # noqa: E731
    return configuration.merge(read_file("config"), read_file("smoke"))


def places(value, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every value of a configuration, also of mappings and lists."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


BASE = smoke()
PLACES = sorted(places(BASE), key=str)
NUMBERS = st.one_of(
    st.integers(-3, 70), st.sampled_from([10**6, 10**9, 10**15, 10**19, 10**40]), st.sampled_from([0.0, -0.0, 0.5, 2.0, 1e-9, 1e9]),
    st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, 5e-324]),
)  # fmt: skip
WORDS = st.one_of(
    st.sampled_from([
        "", " ", "NA", "1e4", "reference", "report.html", "logs", "{max}", "$\\sigma_{max}$", "$", "{", "%s", "a\nb", "../x", "_x", "<b>",
        "solver", "sns", "auto", "x" * 300, "..", "-", "é", "日本", "\u202e", "null", "'", '"', "\\", "`id`", "a b", "{wildcards.x}",
    ]),
    st.text(max_size=12),
)  # fmt: skip
ODD = st.sampled_from(
    [None, True, False, datetime.date(2026, 1, 1), b"x", {"a": 1}, [], {}, [[]], {1: 2}, {None: 1}, 1 + 2j, {"x"}]
)
VALUES = st.one_of(NUMBERS, WORDS, ODD, st.lists(NUMBERS, max_size=4), st.lists(WORDS, max_size=3))
KINDS = ("replace", "replace", "scale", "scale", "number", "delete", "rename", "copy", "itself", "name")


@st.composite
def configurations(draw) -> dict:
    config = copy.deepcopy(BASE)
    for _ in range(draw(st.integers(1, 3))):
        kind, path = draw(st.sampled_from(KINDS)), draw(st.sampled_from(PLACES))
        holder = config
        try:
            for key in path[:-1]:
                holder = holder[key]
            value = holder[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change deleted the key
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "scale" and numeric:
            factor = draw(st.sampled_from([1, 1.0, 2, 3, 0.5, 10, 1000]))
            holder[path[-1]] = value * factor
        elif kind == "number" and numeric:
            holder[path[-1]] = draw(NUMBERS)
        elif kind == "delete" and isinstance(holder, dict):
            del holder[path[-1]]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(WORDS)] = holder.pop(path[-1])
        elif kind == "copy":
            source = draw(st.sampled_from(PLACES))
            inner = BASE
            for key in source:
                inner = inner[key]
            holder[path[-1]] = copy.deepcopy(inner)
        elif kind == "itself":
            holder[path[-1]] = draw(st.sampled_from([holder, config]))
        elif kind == "name":
            section = draw(st.sampled_from(["systems", "models", "methods"]))
            if isinstance(config.get(section), dict) and config[section]:
                config[section][draw(WORDS)] = copy.deepcopy(next(iter(config[section].values())))
        else:
            holder[path[-1]] = draw(VALUES)
    return config


def outcome(config: dict) -> configuration.Configuration | None:
    """Read a configuration. If it is refused, check the message and return None."""
    started = time.perf_counter()
    try:
        checked = read(config)
    except ConfigurationError as error:
        message = str(error)
        assert message.isprintable() or not any(ord(character) < 32 for character in message), repr(message)
        assert "\n" not in message and 10 < len(message) < 500, message
        checked = None
    assert time.perf_counter() - started < SECONDS
    return checked


@settings(OPTIONS, max_examples=300)
@given(configurations())
def test_any_configuration_is_refused_in_one_line_or_read(config):
    checked = outcome(config)
    if checked:
        assert read(checked.whole) == checked, "a configuration that was read reads the same a second time"
        for resolved in checked.systems.values():
            assert configuration.solver_grids(resolved)
            for method in resolved["methods"].values():
                assert len(configuration.segments(method, resolved["rollout"])) <= 10_000
            assert configuration.member_groups(resolved["rollout"])


def test_reading_takes_little_memory():
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 < 2000 + MEGABYTES
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in (10**9, 10**12, 10**18):
        config = smoke()
        config["systems"]["kolmogorov"]["data"]["splits"]["test"]["members"] = value
        config["rollout"]["steps"] = value
        assert outcome(config) is None
    doubled = {"x": 1}
    for _ in range(60):  # each mapping holds the previous mapping twice, as YAML's aliases allow
        doubled = {"a": doubled, "b": doubled}
    for nest in (doubled, [doubled] * 9):
        assert outcome({**smoke(), "rollout": nest}) is None
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000 < MEGABYTES


@pytest.mark.slow
def test_a_configuration_that_is_read_plans_its_run(tmp_path, monkeypatch):
    """Snakemake builds the graph of jobs of the first few drawn configurations that are read."""
    monkeypatch.chdir(tmp_path)
    accepted = []

    @settings(OPTIONS, max_examples=250)
    @given(configurations())
    def collect(config):
        if len(accepted) < PLANNED and outcome(config):
            accepted.append(config)

    collect()
    assert len(accepted) == PLANNED
    for config in accepted:
        with graph_of_jobs(str(ROOT / "Snakefile"), config, ["all"]) as graph:
            assert len(list(graph.jobs)) > 10


OVERLAYS = {
    "methods: {sns: {label: 'SNS $\\sigma_{max}$ <b>'}}": "",
    "rollout: {members: 2.0, steps: 6.0e+1}": "",
    "rollout: {members: 3.5}": "own.yaml, line 1: rollout.members: 3.5 is not a whole number",
    "seed: 1\nseed: 2": "own.yaml, line 2: seed: the key stands twice",
    "run: 2026-01-01": "own.yaml, line 1: run: 2026-01-01 is a date",
    "systems: {kolmogorov: {solver: {dt: 1.0e-9}}}": "nothing has been started",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", OVERLAYS)
def test_a_call_prints_one_line_or_plans_its_run(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    line = [
        warm_python.executable(), "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--dry-run", "--quiet", "--cores", "1",
        "--configfile", ROOT / "config" / "smoke.yaml", path,
    ]  # fmt: skip
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(line, cwd=tmp_path, env=warm_python.environment(), **streams)
    if not OVERLAYS[text]:
        assert done.returncode == 0, done.stdout
        return
    assert done.returncode == 1
    # Snakemake prints these lines before it reads the Snakefile.
    lines = [each for each in done.stdout.splitlines() if not each.startswith(("Config file", "Using "))]
    assert len(lines) == 1 and lines[0].startswith("Configuration: ") and OVERLAYS[text] in lines[0], done.stdout
