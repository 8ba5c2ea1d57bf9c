"""The record of a result: the annotations of a stage's arguments say which arguments are files."""

import importlib
import json
import os
import typing
from pathlib import Path

import pytest

from sns_core.errors import DamagedFile
from sns_core.files import FileTree, checksum, hold, record_path
from sns_core.record import beside, inputs_of, outputs_of, recorded
from sns_core.stages import STAGES

# Arguments of stages that are plain mappings, without names of files.
WITHOUT_FILES = {
    "system",
    "emulator",
    "spec",
    "dask",
    "labels",
    "captions",
    "configuration",
    "surrogates",
}


def stage(
    *,
    table: Path,
    parts: list[Path],
    models: dict[str, Path],
    tree: FileTree,
    label: str,
    options: dict,
    names: list,
    previous: Path | None = None,
    output: Path,
    restart: Path | None = None,
    seed: int = 0,
):
    """A stage with every kind of argument that may name files, and with some that may not."""


@pytest.fixture
def arguments(tmp_path, monkeypatch) -> dict:
    monkeypatch.chdir(tmp_path)
    for name in "abcdefgh":
        Path(name).write_text(name)
    return {
        "table": Path("a"),
        "parts": [Path("b"), Path("a")],
        "models": {"surrogate": Path("c")},
        "tree": {"solver": ["d", {"note": "e"}], "path": "no such file", "levels": 3},
        "label": "f",
        "options": {"kind": "f"},
        "names": ["f"],
        "previous": Path("g"),
        "output": Path("h"),
        "restart": None,
    }


def test_files_are_known_by_their_annotation_and_not_by_their_name(arguments):
    assert inputs_of(stage, arguments) == [Path(name) for name in "abcdeg"]


def test_a_file_that_is_written_is_no_input(arguments):
    arguments["parts"].append(Path("h"))
    assert outputs_of(arguments) == [Path("h")]
    assert Path("h") not in inputs_of(stage, arguments)


def test_the_record_holds_the_checksums_of_inputs_and_outputs(arguments):
    with recorded(stage, arguments, "fingerprint", None, lambda: 0.0):
        Path("h").write_text("made")
    record = json.loads(record_path(Path("h")).read_text())
    assert record["stage"] == "stage" and record["fingerprint"] == "fingerprint"
    assert record["inputs"] == {name: checksum(Path(name)) for name in "abcdeg"}
    assert record["outputs"]["h"]["sha256"] == checksum(Path("h"))


def write_with_record(path: Path, content: bytes) -> Path:
    def make(*, output: Path):
        """A stage without inputs."""

    with recorded(make, {"output": path}, "fingerprint", None, lambda: 0.0):
        path.write_bytes(content)
    return path


def test_no_stage_begins_with_an_input_that_is_not_what_its_record_says(arguments):
    names = [write_with_record(Path(name), b"made") for name in "abc"]
    Path("a").write_bytes(b"Made")
    os.utime("a", ns=(0, json.loads(record_path(Path("a")).read_text())["outputs"]["a"]["modified_ns"]))
    Path("c").write_bytes(b"mad")
    job = recorded(stage, arguments, "fingerprint", None, lambda: 0.0)
    with pytest.raises(DamagedFile, match=r"a: not what its job wrote .*, and so are c") as caught, job:
        pytest.fail("the stage began")
    assert caught.value.paths == [Path("a"), Path("c")]
    Path("a").write_bytes(b"made")
    Path("c").write_bytes(b"made")
    hold(names)


def test_a_large_file_of_the_recorded_size_and_time_is_not_read(tmp_path, monkeypatch):
    path = write_with_record(tmp_path / "large", b"made")
    status = path.stat()
    path.write_bytes(b"Made")
    with pytest.raises(DamagedFile):
        hold([path])
    monkeypatch.setattr("sns_core.files.READ_ALWAYS", 3)
    with pytest.raises(DamagedFile):
        hold([path])  # its time is another one
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    hold([path])


@pytest.mark.parametrize("content", [None, "", "[" * 100_000, "[]", '{"outputs": []}', '{"outputs": {"a": {}}}'])
def test_a_file_whose_record_cannot_be_read_is_taken_as_it_is(tmp_path, content):
    path = write_with_record(tmp_path / "a", b"made")
    path.write_bytes(b"changed")
    record_path(path).unlink()
    if content is not None:
        record_path(path).write_text(content)
    hold([path])


def test_files_beside_an_output_are_recorded(tmp_path):
    def plot_nothing(*, output: Path):
        """A stage that draws."""

    with recorded(plot_nothing, {"output": tmp_path / "nothing.png"}, "fingerprint", None, lambda: 0.0):
        for ending in ("png", "pdf"):
            (tmp_path / f"nothing.{ending}").write_text(ending)
    (tmp_path / "nothing.pdf").write_text("another")
    with pytest.raises(DamagedFile, match=r"nothing\.pdf"):
        hold([tmp_path / "nothing.png", tmp_path / "nothing.pdf"])
    (tmp_path / "movie_small.mp4").touch()
    assert beside("plot_movie", tmp_path / "movie.mp4") == [tmp_path / "movie_small.mp4"]
    assert beside("compute_metrics", tmp_path / "nothing.nc") == []


@pytest.mark.parametrize("name", STAGES)
def test_mappings_with_files_are_annotated_as_such(name):
    """A new argument that is a plain dict must be a FileTree, or be listed in WITHOUT_FILES."""
    hints = typing.get_type_hints(getattr(importlib.import_module(STAGES[name]), name), include_extras=True)
    plain = {argument for argument, hint in hints.items() if hint is dict}
    if name == "tabulate_cost":
        plain.discard("models")  # names of models, not files
    if name in ("diagnose_denoiser", "calibrate_refinement"):
        plain.discard("method")  # a refinement has no file among its options
    if name == "read_source":
        plain.discard("source")  # its files are the argument `files`, too
    if name == "record_provenance":
        plain.discard("methods")  # the configurations of methods, whose files the record does not read
    assert plain <= WITHOUT_FILES
