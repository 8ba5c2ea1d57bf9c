"""Snakemake's own tools on a finished run: its summary, its report, and the removal of all outputs."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from snakemake_calls import SYSTEM, snakemake


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run for one test, with Snakemake's own records of it."""
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def test_the_summary_knows_every_file_and_has_nothing_to_do(root, finished):
    result = snakemake(root, finished, "all", flags=("--summary",))
    rows = [line.split("\t") for line in result.stdout.splitlines() if line.startswith("results/")]
    assert result.returncode == 0 and len(rows) > 50, result.stdout
    assert {row[-1] for row in rows} == {"no update"} and {row[-2] for row in rows} == {"ok"}
    assert str(SYSTEM / "scorecard.csv") in {row[0] for row in rows}


def test_the_list_of_changed_code_is_empty(root, finished):
    result = snakemake(root, finished, "all", flags=("--list-changes", "code"))
    assert result.returncode == 0, result.stdout
    assert not [line for line in result.stdout.splitlines() if line.startswith("results/")]


def test_the_report_has_captions_categories_movie_and_explorer_and_loads_nothing(root, run):
    archive = run / "report.zip"
    result = snakemake(root, run, "all", flags=("--report", str(archive)))
    assert result.returncode == 0, result.stdout
    with zipfile.ZipFile(archive) as report:
        contents = {name: report.read(name) for name in report.namelist()}
    scripts = b"".join(content for name, content in contents.items() if name.endswith((".js", ".html"))).decode()
    assert "system-message" not in scripts  # docutils writes its errors under this name
    for words in ("Vorticity", "movie.mp4", "explorer.html", "Report"):
        assert words in scripts or any(words in name for name in contents), words
    pages = [content.decode() for name, content in contents.items() if name.endswith("report.html")]
    assert pages and not re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)="https?:""", pages[0])


def test_removed_outputs_are_made_again_and_what_rules_do_not_declare_stays(root, run):
    before = {path for path in (run / SYSTEM).rglob("*") if path.is_file()}
    result = snakemake(root, run, "all", flags=("--delete-all-output",))
    assert result.returncode == 0, result.stdout
    left = {path.relative_to(run / SYSTEM) for path in before if path.exists()}
    assert not [path for path in left if path.suffix in (".csv", ".safetensors") and path.parts[0] != "logs"], left
    assert not (run / "results/smoke/report.html").exists()
    plan = snakemake(root, run, "all", flags=("--dry-run", "--quiet", "rules"))
    assert plan.returncode == 0, plan.stdout


def test_the_queue_is_looked_at_when_a_job_ends_and_not_every_second(root, tmp_path):
    """Three simulations of some seconds on one core. With Snakemake's default limit of jobs per second it looks more often."""
    longer, aloud = "systems: {kolmogorov: {data: {spin_up: 20.0}}}", ("--verbose", "--cores", "1")
    result = snakemake(root, tmp_path, "data", flags=aloud, overlay=longer)
    assert result.returncode == 0, result.stdout[-4000:]
    looks = re.findall(r"^Ready jobs: (\d+)", result.stdout, re.M)
    assert 0 < len(looks) <= 6, looks  # one at the start, and one for each of five jobs
