"""Addressed random numbers, and files that are whole or absent."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from sns_core.files import digest, provenance, read_json, read_tensors, sha256, whole_file, write_json, write_tensors
from sns_core.runtime import (
    CompiledForBatchSizes,
    MemberStreams,
    UserError,
    autocast,
    can_compile,
    compiled,
    derive_seed,
    generator,
    normal,
    progress,
    select_device,
    spawn,
)


def draw(stream):
    return torch.randn(6, generator=stream)


# --- random streams ---


def test_seeds_are_the_same_on_every_machine():
    # Written down: a change here would change the data and results of every configuration.
    assert derive_seed(0, "noise", 3, 17) == 6813383524681908221


def test_seeds_differ_in_every_part_and_fit_63_bits():
    seeds = [derive_seed(a, b, c) for a in range(5) for b in ("train", "test") for c in range(50)]
    assert len(set(seeds)) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_generator_is_addressed_by_its_parts():
    assert torch.equal(draw(generator(1, "walk", 2)), draw(generator(1, "walk", 2)))
    assert not torch.equal(draw(generator(1, "walk", 2)), draw(generator(1, "walk", 3)))


def test_a_members_stream_does_not_depend_on_who_else_is_in_the_batch():
    together = MemberStreams(7, "rollout", members=[0, 1, 2, 5]).at(3)
    alone = MemberStreams(7, "rollout", members=[5]).at(3)
    assert torch.equal(draw(together[3]), draw(alone[0]))


def test_a_members_stream_does_not_depend_on_what_was_drawn_before():
    used, fresh = (MemberStreams(7, "rollout", members=[4]) for _ in range(2))
    for step in range(3):
        draw(used.at(step)[0])
    assert torch.equal(draw(used.at(3)[0]), draw(fresh.at(3)[0]))


def test_streams_differ_between_members_steps_and_runs():
    rows = [
        draw(stream)
        for run in (7, 8)
        for step in (0, 1)
        for stream in MemberStreams(run, "rollout", members=[0, 1]).at(step)
    ]
    assert len({tuple(row.tolist()) for row in rows}) == 8


def test_one_generator_spawns_one_stream_a_member():
    first, again = (spawn(generator(1), 3) for _ in range(2))
    rows = [draw(stream) for stream in first]
    assert all(torch.equal(row, draw(stream)) for row, stream in zip(rows, again, strict=True))
    assert len({tuple(row.tolist()) for row in rows}) == 3


def test_a_list_of_streams_is_passed_on():
    streams = [generator(member) for member in range(3)]
    assert spawn(streams, 3) == streams
    with pytest.raises(ValueError, match="3 random streams for 2 members"):
        spawn(streams, 2)


def test_normal_numbers_of_a_row_come_from_its_own_stream():
    like = torch.zeros(1, dtype=torch.float64)
    rows = normal([generator(0), generator(1)], (2, 3), like)
    assert rows.shape == (2, 2, 3)
    assert rows.dtype == torch.float64
    assert torch.equal(rows[1], normal([generator(1)], (2, 3), like)[0])
    assert not torch.equal(rows[0], rows[1])


def test_a_row_without_a_stream_is_zero_and_changes_no_other():
    like = torch.zeros(1)
    rows = normal([None, generator(1), None], (2, 3), like)
    assert torch.equal(rows[1], normal([generator(1)], (2, 3), like)[0])
    assert not rows[[0, 2]].any()


# --- device, precision, compilation, progress ---


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto").type == "cpu"
    with pytest.raises(UserError, match=r"'cuda:1' .* 'cpu'"):
        select_device("cuda:1")


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="'float16'"):
        autocast(torch.device("cpu"), "float16")


def test_networks_run_in_the_precision_asked_for():
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_without_a_compiler_networks_run_as_they_are_and_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    can_compile.cache_clear()
    network = torch.nn.Conv2d(1, 1, 3)
    try:
        assert compiled(network, torch.device("cpu")) is network
        assert not can_compile(torch.device("cpu"))
    finally:
        can_compile.cache_clear()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "compile: needs a C++ compiler" in told


def test_rows_are_filled_up_to_powers_of_two_or_to_the_most_yet():
    buckets = CompiledForBatchSizes(torch.device("cpu"))
    assert [buckets.bucket(rows) for rows in (5, 1, 2, 3, 4)] == [5, 1, 2, 4, 4]
    assert [buckets.bucket(rows) for rows in (20, 9, 17, 6)] == [20, 16, 20, 8]


def test_bucketed_functions_see_full_buckets_and_give_the_rows_asked_for(monkeypatch):
    seen = []

    def function(pair, extra):
        seen.append(len(pair[0]))
        return [pair[0] + pair[1], None], extra

    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    (call,) = CompiledForBatchSizes(torch.device("cpu"), function)
    for rows in (4, 3, 1):
        one, two = torch.randn(2, rows, 2, generator=generator("test", rows))
        (total, nothing), extra = call([one, two], None)
        assert torch.equal(total, one + two) and nothing is None and extra is None
    assert seen == [4, 4, 1]


def test_progress_counts_from_its_start_and_tells_the_rate(capsys):
    assert list(progress(5, "steps", start=2, every=0.0)) == [2, 3, 4]
    told = capsys.readouterr()
    assert told.out == ""
    assert "steps: 5/5" in told.err


# --- whole files ---


def test_a_whole_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "deep" / "result.txt"
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent  # else the last move could not be atomic
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


# --- tensors and JSON ---


def assert_names(caught, path):
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(("; delete it and run again", "; run the stage that makes it (`snakemake` does)"))
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


def test_json_comes_back_as_it_went(tmp_path):
    path, value = tmp_path / "value.json", {"b": [1, 2.5, None], "a": {"ä": True}}
    write_json(path, value)
    assert read_json(path) == value
    assert json.loads(path.read_text()) == value


@pytest.mark.parametrize("content", [None, b"", b'{"a": 1', b"[1]", b"\xff\xfe\x00"])
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


def test_provenance_tells_configuration_seed_versions_and_commit(monkeypatch):
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


# --- memory ---


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_is_kept_is_used_again(root):
    program = """
import resource, torch
from sns_core.runtime import use_threads
use_threads(1)
def work():
    for size in (3_000_000, 5_000_000, 2_000_000):
        a = torch.ones(size); b = a + 1; del a; c = b * 2
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): work()
before, touched = peak(), faults()
for _ in range(30): work()
print(peak() - before, faults() - touched)
"""
    grown, faults = map(int, subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True).split())
    assert grown < 20_000  # kB
    assert faults < 20_000  # 350,000 where each temporary is given back
