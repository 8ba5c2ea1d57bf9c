"""The command line reads stages' arguments by their annotations and ends mistakes in one line."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sns_core.__main__ import main
from sns_core.arguments import expand, read_arguments
from sns_core.stage_help import arguments_of, help_of_stage, split_docstring
from sns_core.stages import STAGES


def stage(
    *,
    name: str,
    count: int,
    scale: float = 1.0,
    spec: dict,
    files: list[Path],
    pair: list,
    previous: Path | None = None,
    fast: bool = False,
):
    """A signature with every kind of argument."""


def test_words_are_converted_to_the_types_of_the_annotations():
    words = ["--name", "x", "--count", "3", "--scale", "0.5", "--spec", '{"a": 1}', "--files", "a.nc", "b.nc"]
    words += ["--pair", "[1,", "15]", "--previous", "r.st", "--fast", "True"]
    read = read_arguments(stage, words)
    assert read == {
        "name": "x", "count": 3, "scale": 0.5, "spec": {"a": 1}, "files": [Path("a.nc"), Path("b.nc")], "pair": [1, 15],
        "previous": Path("r.st"), "fast": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nane", "x"], "unknown argument --nane"),
        (["--name", "x"], "missing argument --count"),
        (["x"], "before any argument"),
        (
            ["--name", "x", "--count", "1", "--spec", "{}", "--files", "a", "--pair", "[]", "--fast", "yes"],
            "neither true nor",
        ),
        (["--name", "x", "y", "--count", "1", "--spec", "{}", "--files", "a", "--pair", "[]"], "takes one value"),
        (["--files", "a", "--files", "b"], "--files stands twice"),
        (["--count", "three"], "--count: 'three' is no whole number"),
        (["--scale", "1,5"], "--scale: '1,5' is no number"),
        (["--spec", "{a: 1}"], "--spec: '{a: 1}' is no JSON"),
        (["--pair", "{}"], "--pair: {} is no list"),
        (["--from-json", "{name: x}"], "--from-json: '{name: x}' is no JSON"),
        (["--from-json", "[1]"], r"--from-json: \[1\] gives no argument a value"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        read_arguments(stage, words)


def test_every_stage_exists_under_its_name():
    import importlib

    for name, module in STAGES.items():
        assert callable(getattr(importlib.import_module(module), name)), name


def test_stages_that_tabulate_and_draw_load_no_torch():
    """The import of torch takes longer than most of these stages."""
    tensors = (
        "data.trajectories",
        "training",
        "rollout",
        "evaluation",
        "metrics.reference",
        "metrics.rollout_metrics",
        "metrics.stationarity_check",
        "theory",
        "figures.movie",
        "figures.phase_space",
    )
    wanted = sorted({m for m in STAGES.values() if not m.removeprefix("sns_core.").startswith(tensors)})
    assert len(wanted) > 20
    code = f"import sys, {', '.join(wanted)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_mistakes_end_as_one_line(capsys, tmp_path):
    assert main(["no_such_stage"]) == 2
    assert capsys.readouterr().err.startswith("no stage or command is called 'no_such_stage'")
    assert main(["train"]) == 2
    assert "'train'; did you mean 'train_model'?\n" in capsys.readouterr().err
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
    missing = str(tmp_path / "missing.nc")
    assert main(["shard_dataset", "--trajectories", missing, "--output", str(tmp_path / "manifest.json")]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("shard_dataset: ") and missing in error[0]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--threads", "two"], "--threads: 'two' is no whole number of at least 1"),
        (["--threads"], "--threads: no value follows"),
        (["--threads", "0"], "--threads: '0' is no whole number of at least 1"),
        (["--threads", "1", "--threads", "2"], "--threads stands twice"),
        (["--log", "--threads", "1"], "--log: no value follows"),
        (["--log", "{here}/file/a.log"], "file"),
        (["@{here}/none"], "@{here}/none: the file cannot be read (No such file or directory)"),
        (["@{here}/open"], "@{here}/open: its words cannot be told apart (No closing quotation)"),
    ],
)
def test_mistakes_in_words_that_any_stage_takes_end_as_one_line(capsys, tmp_path, words, reason):
    (tmp_path / "file").touch()
    (tmp_path / "open").write_text("--output 'a.html")
    words, reason = [word.format(here=tmp_path) for word in words], reason.format(here=tmp_path)
    assert main(["compare", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare: ") and reason in line


def test_a_package_of_an_extra_that_is_missing_is_named_with_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "sns_core.report", raising=False)
    assert main(["write_report"]) == 1
    line = "write_report: needs the package 'av', which is not installed: pip install 'sns-core[movie]'"
    assert capsys.readouterr().err.strip() == line


def test_help_says_what_a_stage_does_and_what_it_takes(capsys):
    assert main(["train_model", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m sns_core train_model")
    assert "Train one model of the configuration" in text
    described = [line.strip() for line in text.splitlines()]
    assert described[described.index("--precision TEXT") + 1] == "auto, float32 or bfloat16 (default: auto)"
    assert "--manifest FILE" in described and "--spec JSON" in described and "--compile true|false" in described


def test_help_of_the_command_line_lists_all_stages(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_the_help_of_a_stage_describes_each_argument_once(name):
    text = help_of_stage(name)
    missing = [argument.flag for argument in arguments_of(name) if not argument.description]
    assert not missing, f"{name} does not describe {missing}"
    assert all(text.count(f"\n  {argument.flag} {argument.kind}\n") == 1 for argument in arguments_of(name))


@pytest.mark.parametrize("words", [["--help"], ["train_model", "--help"]])
def test_help_ends_quietly_where_nobody_reads_it(words):
    reading, writing = os.pipe()
    os.close(reading)
    call = subprocess.run([sys.executable, "-m", "sns_core", *words], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (call.returncode, call.stderr) == (0, "")


def test_help_loads_no_torch():
    code = "import sys; from sns_core.__main__ import main; main(['train_model', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_descriptions_are_found_one_per_line_and_within_a_paragraph():
    text, described = split_docstring(
        """Do a thing.

        `one`: the first. `two`, `three`: the others; `four`: number of things, e.g. 3. Raises ValueError.
        `five`: spread over
        two lines.

        The end.
        """
    )
    assert text == "Do a thing.\n\nRaises ValueError.\n\nThe end."
    assert described == {
        "one": "the first",
        "two": "the others",
        "three": "the others",
        "four": "number of things, e.g. 3",
        "five": "spread over two lines",
    }


def test_arguments_come_as_json_and_from_files(tmp_path):
    def stage(
        *,
        name: str,
        rate: float,
        members: list[int],
        files: list[Path] = (),
        before: Path | None = None,
        on: bool = True,
    ):
        pass

    several = json.dumps({"name": "x {y} 'z'", "rate": 1, "members": [1, 2], "on": False, "before": None})
    read = read_arguments(stage, ["--from-json", several, "--files", "a.nc", "b.nc", "--before"])
    assert read == {
        "name": "x {y} 'z'",
        "rate": 1.0,
        "members": [1, 2],
        "files": [Path("a.nc"), Path("b.nc")],
        "on": False,
        "before": None,
    }
    assert isinstance(read["rate"], float)
    (tmp_path / "words").write_text(shlex.join(["--from-json", several]))
    assert read_arguments(stage, expand([f"@{tmp_path / 'words'}", "--files"])) == {**read, "files": []}
    for wrong, message in [
        ({"name": 3}, "--name: 3 is no str"), ({"rate": "1"}, "--rate"), ({"members": [1.5]}, "--members: 1.5 is no int"),
        ({"on": 1}, "--on: 1 is no bool"), ({"members": True}, "--members"), ({"nmae": "x"}, "unknown argument --nmae"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            read_arguments(stage, ["--from-json", json.dumps({**json.loads(several), **wrong})])


def test_files_that_settings_name_are_found_below_the_folder_of_a_storage(tmp_path):
    def stage(*, name: str, models: dict[str, Path], count: int, lists: dict[str, list[Path]]):
        pass

    for name in ("a.safetensors", "b.nc"):
        (tmp_path / name).touch()
    settings = {"name": "a", "models": {"x": "a.safetensors"}, "count": 2, "lists": {"y": ["b.nc", "missing.nc"]}}
    read = read_arguments(stage, ["--from-json", json.dumps(settings)], files_below=str(tmp_path))
    assert read["models"] == {"x": tmp_path / "a.safetensors"} and (read["name"], read["count"]) == ("a", 2)
    assert read["lists"] == {"y": [tmp_path / "b.nc", Path("missing.nc")]}
