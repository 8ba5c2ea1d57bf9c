"""Files that are whole or absent, tensors with checksums, and provenance."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sns_core.errors import DamagedFile, UserError
from sns_core.files import digest, provenance, read_json, read_tensors, sha256, whole_file, write_json, write_tensors
from sns_core.streams import generator


def test_a_whole_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "deep" / "result.txt"
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent  # the last move is atomic only within one folder
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error), whole_file(tmp_path / "result.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_an_exception_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(ValueError), whole_file(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise ValueError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_makes_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "result.txt"):
        pass
    assert not list(tmp_path.iterdir())


def assert_names(caught, path):
    message = str(caught.value)
    assert str(path) in message
    way_out = f"; run the stage that makes it (`snakemake --cores all -- {path}` does)"
    assert message.endswith(("; delete it and run again", way_out))
    assert "\n" not in message


def test_tensors_and_note_come_back_as_they_went(tmp_path):
    path = tmp_path / "state.safetensors"
    tensors = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "spectrum": torch.randn(2, 3, dtype=torch.complex64, generator=generator(0)),
        "wide": torch.tensor([1e-300, float("nan")], dtype=torch.float64),
        "steps": torch.tensor(7),
        "weights": torch.ones(2, dtype=torch.bfloat16, requires_grad=True),
    }
    write_tensors(path, tensors, {"step": 3, "name": "ä"})
    back, note = read_tensors(path)
    assert note == {"step": 3, "name": "ä"}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name].nan_to_num(nan=5.0), tensor.detach().nan_to_num(nan=5.0))
    assert list(tmp_path.iterdir()) == [path]


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def without_note(path):
    save_file({"a": torch.zeros(2)}, path)


def note_no_json(path):
    save_file({"a": torch.zeros(2)}, path, metadata={"note": "{"})


@pytest.mark.parametrize(
    "spoil", [lambda path: path.unlink(), cut, cut_header, flip, lambda path: path.write_text("no tensors\n"), without_note,
              note_no_json],
    ids=["missing", "cut", "header cut", "bit flipped", "text", "no note", "note no JSON"],
)  # fmt: skip
def test_a_file_of_no_tensors_is_named_with_the_way_out(tmp_path, spoil):
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"a": torch.arange(10)}, {"step": 1})
    spoil(path)
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    assert_names(caught, path)


def test_a_folder_is_not_to_be_deleted(tmp_path):
    with pytest.raises(UserError, match="is a folder; name the file") as caught:
        read_tensors(tmp_path)
    assert not isinstance(caught.value, DamagedFile)


def test_json_comes_back_as_it_went(tmp_path):
    path, value = tmp_path / "value.json", {"b": [1, 2.5, None], "a": {"ä": True}}
    write_json(path, value)
    assert read_json(path) == value
    assert json.loads(path.read_text()) == value


@pytest.mark.parametrize("content", [None, b"", b'{"a": 1', b"[1]", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_of_no_json_object_is_named_with_the_way_out(tmp_path, content):
    path = tmp_path / "value.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert_names(caught, path)


def test_checksums_and_digests_are_known_values(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_provenance_holds_configuration_seed_versions_and_commit(monkeypatch):
    monkeypatch.setattr("sns_core.files.code_state", lambda: {"commit": "c0ffee", "dirty": False})
    record = provenance({"steps": 3}, 5, "cpu", wall_seconds=1.5)
    assert record["configuration"] == {"steps": 3}
    assert (record["seed"], record["device"], record["wall_seconds"]) == (5, "cpu", 1.5)
    assert record["code"] == {"commit": "c0ffee", "dirty": False}
    assert record["versions"]["torch"] == torch.__version__
    assert {"python", "numpy", "xarray", "netCDF4", "sns-core"} <= record["versions"].keys()
    assert json.loads(json.dumps(record)) == record


def test_nothing_in_the_package_unpickles(root):
    for path in [*root.glob("sns_core/**/*.py"), *root.glob("sns_workflow/*.py")]:
        text = path.read_text()
        for words in ("import pickle", "torch.load", "allow_pickle=True", "joblib", "import marshal"):
            assert words not in text, f"{path} holds {words}"
