"""The record of a result: the annotations of a stage's arguments say which arguments are files."""

import importlib
import json
import typing
from pathlib import Path

import pytest

from sns_core.files import FileTree
from sns_core.record import checksum, inputs_of, outputs_of, record_path, recorded
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


@pytest.mark.parametrize("name", STAGES)
def test_mappings_with_files_are_annotated_as_such(name):
    """A new argument that is a plain dict must be a FileTree, or be listed in WITHOUT_FILES."""
    hints = typing.get_type_hints(getattr(importlib.import_module(STAGES[name]), name), include_extras=True)
    plain = {argument for argument, hint in hints.items() if hint is dict}
    if name == "tabulate_cost":
        plain.discard("models")  # names of models, not files
    if name == "diagnose_denoiser":
        plain.discard("method")  # a refinement has no file among its options
    if name == "record_provenance":
        plain.discard("methods")  # the configurations of methods, whose files the record does not read
    assert plain <= WITHOUT_FILES
