"""A finished run as a package: files, checksums, code, and the metadata of an RO-Crate."""

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from small_run import CONFIGURATION, make_run

from sns_core.files import code_state, file_entry, record_path, sha256, write_json
from sns_workflow.publish import CODE, PARTS, code_of, describe, main

WORDS = ["--creators", "Doe, Jane", "Roe, Richard"]


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "a")


def published(run: Path, *words: str) -> dict[str, bytes]:
    """Return name -> content of the package of a run."""
    assert main([str(run), *WORDS, *words]) == 0
    with zipfile.ZipFile(run.parent / "a.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def entities(contents: dict[str, bytes]) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in json.loads(contents["ro-crate-metadata.json"])["@graph"]}


def names(references) -> list[str]:
    return [entry["@id"] for entry in (references if isinstance(references, list) else [references])]


def test_every_file_is_listed_with_its_checksum(run):
    contents = published(run)
    listed = dict(line.split("  ")[::-1] for line in contents["checksums.sha256"].decode().splitlines())
    assert set(listed) == set(contents) - {"checksums.sha256"}
    assert all(hashlib.sha256(contents[name]).hexdigest() == checksum for name, checksum in listed.items())
    parts = names(entities(contents)["./"]["hasPart"])
    assert set(parts) == set(listed) - {"ro-crate-metadata.json"}
    assert {"flow/scorecard.csv", "flow/figures/fields.png", "provenance.json", "workflow/Snakefile"} <= set(parts)


def test_the_crate_tells_which_job_made_which_file_of_which(run):
    crate = entities(published(run))
    job = crate["#job-compute_metrics-flow/metrics/sns.nc"]
    assert names(job["instrument"]) == ["#stage-compute_metrics"]
    assert names(job["result"]) == ["flow/metrics/sns.nc"]
    assert "flow/shards/manifest.json" in names(job["object"])
    settings = crate[names(job["object"])[0]]
    assert json.loads(settings["value"]) == {"window": 500}
    assert (job["startTime"], job["endTime"]) == ("2001-09-09T01:46:38+00:00", "2001-09-09T01:46:40+00:00")
    assert crate["#stage-compute_metrics"]["name"] == "python -m sns_core compute_metrics"
    assert names(crate["./"]["conformsTo"])[2] == "https://w3id.org/ro/wfrun/provenance/0.5"
    assert len(names(crate["./"]["author"])) == 2


def test_every_reference_leads_to_an_entity(run):
    crate = entities(published(run, "--without", *PARTS))
    outside = ("https://w3id.org/ro/crate", "https://bioschemas.org")
    for entity in crate.values():
        for value in entity.values():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict) and not each["@id"].startswith(outside):
                    assert each["@id"] in crate, (entity["@id"], each)


def test_a_package_says_how_large_the_rollouts_of_each_system_were(tmp_path):
    """A system may override the run's lengths, and files of a source may hold fewer members than the run asks for."""
    configuration = {**CONFIGURATION, "systems": {"flow": {"override": {"rollout": {"members": 1, "steps": 40}}}}}
    run = make_run(tmp_path / "a", configuration)
    assert "on flow (data from files), 1 member over 40 steps." in published(run)["README.md"].decode()
    record = json.loads((run / "provenance.json").read_text())
    (run / "files").mkdir()
    rows = [{"method": "sns", "member": member, "layer": "flow", "steps": 50} for member in range(3)]
    pd.DataFrame(rows).to_csv(run / "files/metrics.csv", index=False)
    configuration["systems"]["files"] = {}
    words = describe(run, {**record, "systems": {"flow": {}, "files": {}}, "configuration": configuration})
    assert words.endswith(", 1 member over 40 steps of flow, 3 members over 50 steps of files.")


def test_a_part_that_is_left_out_is_named_by_its_checksum(run):
    (run / "flow/models").mkdir()
    (run / "flow/models/net.safetensors").write_bytes(b"weights")
    record = json.loads((run / "flow/metrics/provenance/sns.nc.json").read_text())
    record["inputs"]["results/a/flow/models/net.safetensors"] = hashlib.sha256(b"weights").hexdigest()
    (run / "flow/metrics/provenance/sns.nc.json").write_text(json.dumps(record))
    assert "flow/models/net.safetensors" in published(run)
    contents = published(run, "--without", "models")
    assert "flow/models/net.safetensors" not in contents and b"Left out: models" in contents["README.md"]
    left_out = entities(contents)["#not-in-this-package/flow/models/net.safetensors"]
    assert left_out["identifier"] == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"


def test_logs_and_unfinished_work_are_no_part_of_a_package(run):
    for name in ("flow/logs/a.log", "flow/models/.work/checkpoint", "flow/metrics/provenance/sns.nc.running"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    assert not [name for name in published(run) if name.endswith((".log", "checkpoint", ".running"))]


def test_the_packed_workflow_holds_every_file_of_the_code_also_behind_a_link(root):
    contents, sentence = code_of([code_state()["commit"]])
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--", *CODE], capture_output=True, text=True, check=True
    )
    assert set(contents) == set(listed.stdout.split("\0")) - {""} and "of commit" in sentence
    schema = (root / "workflow/schemas/config.schema.yaml").read_bytes()
    assert contents["sns_workflow/config.schema.yaml"] == schema


def record_of(run: Path, result: str, stage: str, inputs: list[str]) -> None:
    """Write a result of a stage, and its record."""
    path = run / result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stage)
    record = json.loads((run / "flow/metrics/provenance/sns.nc.json").read_text())
    read = {f"results/a/{name}": sha256(run / name) for name in inputs}
    write_json(record_path(path), {**record, "stage": stage, "inputs": read, "outputs": {path.name: file_entry(path)}})


def refused(run: Path, capsys, *words: str) -> str:
    """Return the one line in which the publication of a run is refused."""
    assert main([str(run), *WORDS, *words]) == 1 and not list(run.parent.rglob("*.zip"))
    line = capsys.readouterr().err.strip()
    assert line.startswith("publish: ") and "\n" not in line
    return line


def test_a_file_that_is_not_what_its_record_says_is_not_published(run, capsys):
    (run / "flow/metrics/sns.nc").write_text("SNS")
    line = refused(run, capsys)
    assert f"{run}/flow/metrics/sns.nc: not what its job wrote" in line and "run `snakemake verify`" in line


def test_a_run_without_records_is_not_published(run, capsys):
    shutil.rmtree(run / "flow/metrics/provenance")
    assert "holds no records of its jobs" in refused(run, capsys)


def test_a_package_in_the_folder_that_it_packs_is_refused(run, capsys):
    line = refused(run, capsys, "--output", str(run / "flow" / "mine.zip"))
    assert f"{run}/flow/mine.zip: lies in the run's folder" in line


def test_files_that_were_not_made_for_the_report_are_named(run, capsys):
    record_of(run, "report.html", "write_report", ["flow/metrics/sns.nc"])
    (run / "notes.txt").touch()
    page = published(run)["README.md"].decode()
    others = page.partition("Not made for the report: ")[2]
    assert "`flow/metrics/solver.nc`" in others and "`notes.txt`" in others and "sns.nc`" not in others
    assert "of them were not made for the report, " in capsys.readouterr().out


def test_a_file_beside_the_outputs_of_a_job_is_a_result_of_the_job(run):
    record_of(run, "flow/figures/error.png", "plot_error", [])
    (run / "flow/figures/error.pdf").touch()
    record = json.loads((run / "flow/figures/provenance/error.png.json").read_text())
    record["outputs"]["error.pdf"] = file_entry(run / "flow/figures/error.pdf")
    write_json(record_path(run / "flow/figures/error.pdf"), record, sort_keys=False)
    job = entities(published(run))["#job-plot_error-flow/figures/error.png"]
    assert names(job["result"]) == ["flow/figures/error.png", "flow/figures/error.pdf"]


@pytest.mark.parametrize("place", ["provenance.json", "flow/metrics/provenance/sns.nc.json"])
def test_uncommitted_changes_of_the_code_are_stated(run, place):
    record = json.loads((run / place).read_text())
    if "code_of_results" in record:
        record["code_of_results"][0]["dirty"] = True
    else:
        record["code"] = {"commit": "1" * 40, "dirty": True}
    write_json(run / place, record)
    assert b"made with uncommitted changes" in published(run)["README.md"]


def test_links_of_a_sweep_are_packed_as_the_files_to_which_they_lead(run):
    frames = run.parent / "frames.npy"
    frames.write_bytes(b"frames")
    (run / "flow/shards/train_0000.npy").symlink_to("../../../frames.npy")
    assert published(run)["flow/shards/train_0000.npy"] == b"frames"


def test_a_shard_that_a_link_has_replaced_has_no_record_of_the_point_s_own_shard(run):
    """The point made the shard itself before its settings became those of another point."""
    shard, frames = run / "flow/shards/train_0000.npy", run.parent / "frames.npy"
    record_of(run, "flow/shards/train_0000.npy", "shard_dataset", [])
    assert "#job-shard_dataset-flow/shards/train_0000.npy" in entities(published(run))
    shard.unlink()
    frames.write_bytes(b"frames")
    shard.symlink_to("../../../frames.npy")
    contents = published(run)
    assert contents["flow/shards/train_0000.npy"] == b"frames"
    assert not any("shard_dataset" in name for name in entities(contents))


def test_the_users_own_code_is_packed_or_asked_for(run, tmp_path, monkeypatch, capsys):
    record = json.loads((run / "provenance.json").read_text())
    record["configuration"]["metrics"] = {"user": ["mine.skewness"]}
    write_json(run / "provenance.json", record)
    monkeypatch.chdir(tmp_path)
    assert "there is no mine.py" in refused(run, capsys)
    (tmp_path / "mine.py").write_text("import moments\ndef skewness(frames, system): ...\n")
    (tmp_path / "moments.py").write_text("def third(values): ...\n")
    contents = published(run)
    assert contents["workflow/mine.py"] == (tmp_path / "mine.py").read_bytes() and "workflow/moments.py" in contents
    assert b"The user's own code is in it, too: mine.py, moments.py." in contents["README.md"]


def test_the_page_names_what_a_run_reads_from_outside_its_folder(run):
    assert b"Put there first" not in published(run)["README.md"]
    record = json.loads((run / "provenance.json").read_text())
    record["configuration"]["reuse"] = {"folder": "gallery/mine", "solver": True}
    files = {"test": ["frames/a.nc", "frames/b.nc"], "train": "frames/train*.nc"}
    record["configuration"]["systems"]["flow"] = {"source": {"files": files, "static": {"file": "coast.nc"}}}
    record["systems"]["flow"]["methods"] = {
        "sns": {"kind": "refinement"},
        "other": {"kind": "external", "file": "other.nc"},
    }
    write_json(run / "provenance.json", record)
    names = "`gallery/mine`, `frames/a.nc`, `frames/b.nc`, `frames/train*.nc`, `coast.nc`, `other.nc`"
    page = published(run)["README.md"].decode()
    assert f"../config.json`. Put there first what is not in this package: {names}." in page


def test_the_same_run_gives_the_same_bytes(run):
    published(run)
    first = (run.parent / "a.zip").read_bytes()
    published(run)
    assert (run.parent / "a.zip").read_bytes() == first


def test_licence_size_and_authors_are_stated_for_people_and_for_zenodo(run, capsys):
    contents = published(run, "--license", "CC0-1.0")
    page = contents["README.md"].decode()
    assert "Licence: CC0-1.0. By Doe, Jane; Roe, Richard." in page and " MB. `sha256sum -c" in page
    deposit = json.loads((run.parent / "a.zenodo.json").read_text())["metadata"]
    assert deposit["license"] == "cc0-1.0" and [each["name"] for each in deposit["creators"]] == WORDS[1:]
    assert " files, " in capsys.readouterr().out


def test_a_run_that_is_not_finished_ends_in_one_line(tmp_path, root, capsys):
    assert main([str(tmp_path), *WORDS]) == 1
    assert main([str(root / "gallery/re1e4"), *WORDS]) == 1
    first, second = capsys.readouterr().err.strip().splitlines()
    assert first.startswith(f"publish: {tmp_path}: no finished run") and "publish the run itself" in second
