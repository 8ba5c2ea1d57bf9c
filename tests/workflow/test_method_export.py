"""A method leaves its run as one file: read by the library in any folder, or run by torch alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sns_core
from sns_core.__main__ import main
from sns_core.errors import DamagedFile, UserError
from sns_core.export import export, open_rollout
from sns_core.files import file_entry, read_json, read_tensors, record_path, write_json, write_tensors
from sns_core.streams import MemberStreams
from sns_workflow.publish import main as publish

ALONE = """
import sys
import torch
further = {"facts.json": "", "card.md": ""}
step = torch.export.load(sys.argv[1], extra_files=further).module()
inputs = torch.load(sys.argv[2], weights_only=True)
assert "sns_core" not in sys.modules
torch.save([step(*each) for each in inputs], sys.argv[3])
print(further["facts.json"])
"""


@pytest.fixture(scope="module")
def run(finished):
    return finished / "results/smoke"


@pytest.mark.parametrize("method", ["pointwise", "sns_published", "sns"])
def test_a_method_without_its_run_has_the_same_bits(run, tmp_path, method):
    line = export(run, method, output=tmp_path / "elsewhere.safetensors")
    assert "4 initial states" in line
    inside, outside = (
        sns_core.load(run, method, device="cpu"),
        sns_core.load(tmp_path / "elsewhere.safetensors", device="cpu"),
    )
    assert outside.method == method and outside.grid == inside.grid and outside.step == inside.step
    x0 = outside.initial_state(members=3)
    np.testing.assert_array_equal(x0, inside.initial_state(members=3))
    frames = [emulator.rollout(x0, steps=4, seed=5)["vorticity"].values for emulator in (inside, outside)]
    np.testing.assert_array_equal(*frames)


def test_the_card_says_what_the_method_is_and_how_good(run, tmp_path):
    export(run, "sns", output=str(tmp_path / "sns.safetensors"))  # a name will do
    card = sns_core.load(tmp_path / "sns.safetensors", device="cpu").card
    parameters = sum(
        p.numel() for p in sns_core.load(run, "pointwise", device="cpu")._method.predict.network.parameters()
    )
    assert "KolmogorovFlow" in card and "| surrogate | pointwise | pointwise |" in card
    assert f"{parameters:,}".replace(",", "" if parameters < 10_000 else "\u202f") in card
    assert "Spectrum error" in card and 'sns_core.load("sns.safetensors")' in card
    assert sns_core.load(run, "sns", device="cpu").card == ""


def test_the_card_of_a_method_that_lost_every_member_does_not_praise_it(run, tmp_path):
    export(run, "sns_published", output=tmp_path / "lost.safetensors")
    card = sns_core.load(tmp_path / "lost.safetensors", device="cpu").card
    assert "2 of 2 members were lost." in card and "A rollout keeps the statistics" not in card
    assert "Its scores say how well a rollout keeps the statistics" in card


def test_torch_alone_makes_the_librarys_steps_for_any_number_of_members(run, tmp_path):
    """The numbers that the library draws for the first two steps are the program's input; the start is not the frame."""
    export(run, "sns", output=tmp_path / "sns.pt2")
    emulator, inputs, expected = sns_core.load(run, "sns", device="cpu", precision="float32"), [], []
    for members in (1, 2, 4):
        frames = torch.from_numpy(emulator.rollout(emulator.initial_state(members), steps=2)["vorticity"].values)
        for step in (1, 2):
            streams = MemberStreams(0, "rollout", "sns", members=range(members)).at(step)
            noise = torch.stack([torch.empty(2 * 16 * 16).normal_(generator=stream) for stream in streams])
            inputs.append((frames[:, step - 1].clone(), frames[:, 0].clone(), noise))
            expected.append(frames[:, step])
    torch.save(inputs, tmp_path / "in.pt")
    words = [sys.executable, "-c", ALONE, *(str(tmp_path / name) for name in ("sns.pt2", "in.pt", "out.pt"))]
    result = subprocess.run(words, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["inputs"] == {"frame": [1, 16, 16], "start": [1, 16, 16], "noise": [512]} and facts["step"] == 0.1
    for frame, reference in zip(torch.load(tmp_path / "out.pt"), expected, strict=True):
        torch.testing.assert_close(frame, reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


def test_a_refused_export_leaves_every_file_in_place(run, tmp_path, capsys):
    """Other data under a whole model, and a model that is cut: a command that only reads moves neither."""
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    manifest, model = copied / "kolmogorov/shards/manifest.json", copied / "kolmogorov/models/pointwise.safetensors"
    write_json(manifest, {**read_json(manifest), "identity": "0" * 64})
    record_path(manifest).unlink()
    before = sorted(copied.rglob("*"))
    words = ["export", str(copied), "pointwise", "--output", str(tmp_path / "a.safetensors")]
    assert main(words) == 1
    model.write_bytes(model.read_bytes()[:-1])
    assert main(words) == 1
    foreign, cut = capsys.readouterr().err.splitlines()
    assert f"{model}: trained on other data" in foreign and foreign.endswith(f"--forcerun {model}` makes it anew")
    assert f"{model}: " in cut and cut.endswith("delete it, and the next `snakemake` makes it anew")
    assert sorted(copied.rglob("*")) == before


def test_what_cannot_go_out_is_one_line(run, tmp_path):
    for method, suffix, words in (
        ("solver", "safetensors", "'solver' has no networks; export another method"),
        ("solver", "pt2", "'solver' has no networks"),
        (
            "sns_published",
            "pt2",
            "a step is no single graph of torch .*; export a surrogate or a calibrated refinement",
        ),
        ("snss", "safetensors", "did you mean 'sns"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            export(run, method, output=tmp_path / f"a.{suffix}")
        assert "\n" not in str(caught.value)
    for suffix in ("zarr", "safetensors"):
        with pytest.raises(UserError, match="no system 'kolmogrov'"):
            export(run, "sns", output=tmp_path / f"a.{suffix}", system="kolmogrov")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("segment", [0, 1])
def test_a_rollout_that_lacks_a_segment_or_has_an_altered_one_does_not_go_out(run, tmp_path, segment):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    assert open_rollout(copied, "sns").sizes["time"] == 31
    assert open_rollout(str(copied), "sns_clean").sizes["time"] == 11
    path = copied / f"kolmogorov/rollouts/sns/0-1/segment_000{segment}.nc"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=f"rollouts/sns: lacks step {30 * segment + 1}; the same `snakemake` call"):
        open_rollout(copied, "sns")
    path.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    with pytest.raises(DamagedFile, match="not what its job wrote"):
        open_rollout(copied, "sns")


@pytest.mark.parametrize("suffix", ["hdf5", "safetensors", "pt2"])
def test_a_call_without_the_system_of_several_is_told_the_option_of_the_command(tmp_path, suffix):
    write_json(tmp_path / "run/provenance.json", {"systems": {"a": {"methods": {}}, "b": {"methods": {}}}})
    with pytest.raises(UserError, match=r"run: holds several systems; give --system, one of a, b$"):
        export(tmp_path / "run", "sns", output=tmp_path / f"a.{suffix}")


def test_a_rollout_of_as_many_members_as_the_files_of_a_source_allow_goes_out(run, tmp_path):
    """The configuration may ask for more members than were run: they are fitted to what the files hold."""
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    record = json.loads((copied / "provenance.json").read_text())
    record["configuration"]["rollout"]["members"] = 8
    record_path(copied / "provenance.json").unlink()
    (copied / "provenance.json").write_text(json.dumps(record))
    assert open_rollout(copied, "sns").sizes["member"] == 2


def test_a_file_that_holds_no_method_is_one_line(run, tmp_path):
    with pytest.raises(UserError, match="is no exported method"):
        sns_core.load(run / "kolmogorov/models/pointwise.safetensors")
    with pytest.raises(UserError, match="missing"):
        sns_core.load(tmp_path / "nowhere.safetensors")
    path = tmp_path / "sns.safetensors"
    export(run, "pointwise", output=path)
    with pytest.raises(UserError, match="holds the method 'pointwise', not 'sns'; leave method= out"):
        sns_core.load(path, "sns")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"its checksum differs.*export the method again"):
        sns_core.load(path)
    assert path.exists(), "nobody can make a foreign file again, so it stays where it is"


@pytest.mark.parametrize("name", ["models/pointwise.safetensors", "metrics/pointwise.nc"])
def test_results_of_a_run_that_was_made_again_in_part_are_not_taken_for_its_own(run, tmp_path, capsys, name):
    """As after `snakemake models` with another number of training steps: the scores are those of the model before."""
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    path, record = copied / "kolmogorov" / name, record_path(copied / "kolmogorov" / name)
    if path.suffix == ".safetensors":
        tensors, note = read_tensors(path)
        write_tensors(path, {tensor: 2 * values for tensor, values in tensors.items()}, note)
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    write_json(record, {**read_json(record), "outputs": {path.name: file_entry(path)}})
    for words in (
        ["export", str(copied), "pointwise", "--output", str(tmp_path / "a.safetensors")],
        ["export", str(copied), "pointwise", "--output", str(tmp_path / "a.pt2")],
        ["collect_run", "--run", str(copied), "--output", str(tmp_path / "gallery/given.json")],
        ["compare", str(run), str(copied), "--output", str(tmp_path / "a.html")],
    ):
        assert main(words) == 1, words
    assert publish([str(copied), "--creators", "Doe, Jane"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and all(f"{path}: not the " in line for line in lines), lines
    if path.suffix == ".safetensors":
        with pytest.raises(UserError, match="not the model that the run's record names, so the run is not finished"):
            sns_core.load(copied, "sns", device="cpu")
        with pytest.raises(UserError, match="not the file from which kolmogorov/rollouts/pointwise"):
            open_rollout(copied, "pointwise")
    assert sns_core.load(copied, "acdm", device="cpu").method == "acdm"
    assert not list(tmp_path.glob("*.*")) and not list(tmp_path.glob("gallery/*.*"))


@pytest.mark.parametrize("part_of_run", ["kind", "system"])
def test_a_class_of_the_users_own_that_is_not_here_is_one_line(run, tmp_path, monkeypatch, part_of_run):
    copied, elsewhere = Path(shutil.copytree(run, tmp_path / "run")), tmp_path / "elsewhere"
    elsewhere.mkdir()
    export(run, "pointwise", output=tmp_path / "a.safetensors")
    tensors, note = read_tensors(tmp_path / "a.safetensors")
    record, manifest = copied / "provenance.json", copied / "kolmogorov/shards/manifest.json"
    content = {path: read_json(path) for path in (record, manifest)}
    for part in (note["options"], content[record]["systems"]["kolmogorov"]["methods"]["pointwise"]) * (
        part_of_run == "kind"
    ):
        part["kind"] = "mine.Method"
    for part in (note["manifest"], content[manifest]) * (part_of_run == "system"):
        part["system"]["name"] = "mine.Flow"
    write_tensors(tmp_path / "a.safetensors", tensors, note)
    for path in content:
        write_json(path, content[path])
        record_path(path).unlink()
    monkeypatch.chdir(elsewhere)
    for path, method in ((tmp_path / "a.safetensors", None), (copied, "pointwise")):
        with pytest.raises(
            UserError, match=r"needs code of your own: 'mine\..*': there is no mine.py in .*elsewhere; call"
        ):
            sns_core.load(path, method, device="cpu")
