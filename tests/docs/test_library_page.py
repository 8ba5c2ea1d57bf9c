"""Every Python example of docs/library.md, of docs/library.ipynb and of the README runs without a change."""

import json
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from pages import ROOT, blocks

import sns_core
from sns_core.errors import UserError


@pytest.fixture
def at_root(monkeypatch):
    """Run the examples in the root of the repository, as a reader does, and without a screen."""
    monkeypatch.chdir(ROOT)
    matplotlib.use("Agg")
    yield
    plt.close("all")


def run(code: str, name: str) -> dict:
    """Execute an example, and return its names."""
    names = {"__name__": "example"}
    exec(compile(code, name, "exec"), names)
    return names


def test_a_gallery_folder_is_an_emulator(at_root):
    names = run(blocks("library")["emulator.py"], "emulator.py")
    flow, energy = names["flow"], names["energy"]
    assert dict(flow.vorticity.sizes) == {"member": 1, "time": 11, "layer": 1, "y": 64, "x": 64}
    assert np.allclose(flow.vorticity[0, 0, 0], names["x0"], atol=1e-4), "frame 0 is the initial state"
    assert flow.time.values[-1] == pytest.approx(200 * 0.05)
    assert bool((energy[-1, 1:20] > 0).all()) and len(plt.gca().lines) == 11


def test_sns_stabilises_a_surrogate_from_outside_the_package(at_root):
    frames = run(blocks("library")["around_yours.py"], "around_yours.py")["frames"]
    alone, refined = (float(frame.std()) for frame in frames.values())
    assert alone > 1.35 and refined < 1.3, "the surrogate alone grows rough; with refinement it stays nearer to 1"


def test_a_stream_goes_on_until_the_reader_stops_it(at_root, capsys):
    names = run(blocks("library")["endless.py"], "endless.py")
    assert names["frames"].shape == (2, 1, 64, 64) and names["time"] == pytest.approx(1.0)
    assert len(capsys.readouterr().out.splitlines()) == 20


def test_the_example_of_the_readme_runs(at_root):
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    shorter = {'"results/demo"': '"gallery/re1e4"', "steps=1000": "steps=40", "time > 100": "time > 0.5"}
    for words, replacement in shorter.items():
        assert words in code
        code = code.replace(words, replacement)
    names = run(code, "README.md")
    assert names["flow"].sizes["time"] == 5 and names["time"] == pytest.approx(0.55)


FLOW = "gallery/re1e4"
MISTAKES = {
    "no such folder": lambda x0: sns_core.load("gallery/none"),
    "a run that is not finished": lambda x0: sns_core.load("gallery"),
    "a method or a system that the run does not have": lambda x0: sns_core.load(FLOW, method="sms"),
    "a state of another shape or grid": lambda x0: sns_core.load(FLOW).rollout(x0[..., :32], steps=1),
    "complex numbers, booleans or text": lambda x0: sns_core.load(FLOW).rollout(x0 * 1j, steps=1),
    "NaN": lambda x0: sns_core.load(FLOW).rollout(x0 * np.nan, steps=1),
    "an xarray array of several times": lambda x0: sns_core.load(FLOW).rollout(
        xr.DataArray(x0[None], dims=("time", "y", "x")), steps=1
    ),
    "an xarray array with other dimensions": lambda x0: sns_core.load(FLOW).rollout(
        xr.DataArray(x0, dims=("row", "column")), steps=1
    ),
    "an xarray array in other units": lambda x0: sns_core.load(FLOW).rollout(
        xr.DataArray(x0, dims=("y", "x"), attrs={"units": "1/s"}), steps=1
    ),
    "an xarray array whose y or x descends": lambda x0: sns_core.load(FLOW).rollout(
        xr.DataArray(x0, dims=("y", "x"), coords={"y": np.arange(64)[::-1]}), steps=1
    ),
    "an xarray array on other points": lambda x0: sns_core.load(FLOW).rollout(
        xr.DataArray(x0, dims=("y", "x"), coords={"y": np.arange(64) + 0.5}), steps=1
    ),
    "more states than the run kept": lambda x0: sns_core.load(FLOW).initial_state(members=50),
    "exponents of several states": lambda x0: sns_core.load(FLOW).lyapunov_exponents(np.stack([x0, x0])[:, None], 1, 2),
    "exponents of networks in bfloat16": lambda x0: sns_core.load(FLOW, precision="bfloat16").lyapunov_exponents(
        x0, 1, 2
    ),
    "a device that is neither a CPU nor an NVIDIA GPU": lambda x0: sns_core.load(FLOW, device="mps"),
    "steps that `every` does not divide": lambda x0: sns_core.load(FLOW).rollout(x0, steps=10, every=4),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_of_the_page(at_root, mistake):
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "library.md").read_text().splitlines()]
    (message,) = [row[1].strip("` ") for row in rows if row[0] == mistake]
    with pytest.raises(UserError) as caught:
        MISTAKES[mistake](np.ones((64, 64)))
    assert "\n" not in str(caught.value)
    parts = [part for part in message.split("…") if part.strip(": ;,?")]
    assert parts and all(part.strip() in str(caught.value) for part in parts), str(caught.value)


SHORTER = {"steps=400, every=40": "steps=40, every=4", "steps=200, every=20": "steps=20, every=2"}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_a_picture_in_each_cell_that_draws(at_root, monkeypatch):
    monkeypatch.chdir(ROOT / "docs")
    text = (ROOT / "docs" / "library.ipynb").read_text()
    assert all(steps in text for steps in SHORTER)
    notebook = json.loads(text)
    names = {"__name__": "notebook"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        code = "".join(cell["source"])
        for steps, fewer in SHORTER.items():
            code = code.replace(steps, fewer)
        exec(compile(code, f"cell {number}", "exec"), names)
        pictures = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
        assert len(pictures) == len(plt.get_fignums()), f"cell {number}: execute the notebook again"
        plt.close("all")


def test_the_notebook_has_the_example_of_the_page():
    """The notebook and the page define the same surrogate; only imports and the folder differ."""
    page = blocks("library")["around_yours.py"].replace('"gallery/', '"../gallery/').splitlines()
    cells = json.loads((ROOT / "docs" / "library.ipynb").read_text())["cells"]
    (code,) = ["".join(cell["source"]) for cell in cells if "class Advection" in "".join(cell["source"])]
    assert [line for line in code.splitlines() if line not in page] == []
