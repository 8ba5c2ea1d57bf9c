"""The workflow runs a system, a method, a rival and two metrics from the code blocks of the pages that say how to add them."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
import warm_python
import xarray as xr
import yaml
from pages import blocks

from sns_workflow.configuration import ConfigurationError, merge, validate

PAGES = ("add-a-system", "add-a-method", "add-a-metric", "comparison")
# The size of the smoke run.
SMALL = """
run: own
use: {systems: [surface], methods: [solver, pointwise, kept, likelihood]}
systems:
  surface:
    solver: {resolution: 32, dt: 0.04}
    emulator: {resolution: 16}
    data: {spin_up: 4.0, shard_members: 4, splits: {train: {members: 4, frames: 40}, validation: {members: 2, frames: 24},
           test: {members: 4, frames: 60}}}
models:
  likelihood:
    network: {width: 8, head_width: 16}
    training: {steps: 40, batch: 8, warmup: 5, log_every: 10, checkpoint_every: 20}
"""
TABLES = Path("results/own/surface")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder like a user's: it holds the files of the pages and nothing else."""
    folder = tmp_path_factory.mktemp("own")
    for page in PAGES:
        for name, content in blocks(page).items():
            (folder / name).write_text(content)
    (folder / "small.yaml").write_text(SMALL)
    return folder


def snakemake(root: Path, folder: Path, *words: str, flags: tuple[str, ...] = ()) -> str:
    overlays = [
        root / "config/smoke.yaml",
        *(folder / f"{name}.yaml" for name in ("surface", "likelihood", "kept", "gradients", "small")),
    ]
    line = [
        warm_python.executable(),
        "-m",
        "snakemake",
        "--snakefile",
        root / "Snakefile",
        "--directory",
        folder,
        "--cores",
        "2",
    ]
    line += ["--workflow-profile", root / "profiles/default", "--configfile", *overlays, *flags, "--", *words]
    done = subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=warm_python.environment(), timeout=900
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_each_page_shows_all_of_its_code_in_under_thirty_lines(page):
    for name, content in blocks(page).items():
        assert 0 < sum(bool(line.strip()) for line in content.splitlines()) < 30, name


def test_system_method_and_metrics_of_the_pages_run_through_the_workflow(root, folder):
    figure = TABLES / "figures" / "fields.png"
    snakemake(root, folder, "metrics", str(figure))
    windows = pd.read_csv(folder / TABLES / "windows.csv")
    assert list(windows["method"].unique()) == ["solver", "pointwise", "kept", "likelihood"]
    assert (folder / figure).stat().st_size > 10_000
    # The solver's rollout continues its data, so it has the same spectrum and the same fine structure.
    solver = windows[windows["method"] == "solver"]
    for name in ("palinstrophy", "extreme", "kinetic_energy"):
        ratio = solver[name] / solver[f"{name}_solver"]
        assert ratio.between(0.3, 3).all(), (name, ratio)
    members = pd.read_csv(folder / TABLES / "metrics.csv")
    assert {"palinstrophy", "palinstrophy_solver", "extreme"} <= set(members.columns)


def test_the_metric_has_the_value_that_the_page_gives(folder):
    with xr.open_dataset(folder / TABLES / "metrics/solver.nc") as series:
        assert series["palinstrophy"].dims == ("member", "time", "layer")
    space = {}
    exec(blocks("add-a-metric")["gradients.py"], space)
    y = torch.arange(32) * 2 * torch.pi / 32
    frames = (3 * torch.sin(5 * y))[None, None, :, None].expand(1, 1, 32, 32)
    system = type("Flow", (), {"length": 2 * torch.pi})
    assert space["palinstrophy"](frames, system).item() == pytest.approx(0.5 * 25 * 9 / 2, rel=1e-5)


def test_the_method_of_the_page_holds_the_spectrum(folder):
    """With the page's method no shell exceeds 1.2 times the power in the training data; with the surrogate alone, shells do."""
    import json

    from sns_core.shells import shell_index

    limit = 1.2 * torch.tensor(
        json.loads((folder / TABLES / "shards/manifest.json").read_text())["statistics"]["shell_amplitude"]
    )
    std = json.loads((folder / TABLES / "shards/manifest.json").read_text())["statistics"]["std"][0]
    shells = torch.from_numpy(shell_index(16)).flatten()
    size = {}
    for method in ("pointwise", "kept"):
        with xr.open_dataset(folder / TABLES / f"rollouts/{method}/0-1/segment_0001.nc") as segment:
            frames = torch.from_numpy(segment["buoyancy"].values[:, -1]) / std
        power = torch.fft.rfft2(frames, norm="ortho").abs().square().flatten(2)
        size[method] = (torch.zeros(2, 1, limit.shape[1]).index_add(2, shells, power) / shells.bincount()).sqrt()
    inner = slice(1, 8)  # the Nyquist modes cut the shells beyond
    assert (size["kept"] <= limit * 1.01)[..., inner].all()
    assert (size["pointwise"] > limit * 1.01)[..., inner].any()


def test_the_rival_of_the_page_learns_and_draws_points_by_themselves(folder):
    history = pd.read_csv(folder / TABLES / "models/likelihood.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    with xr.open_dataset(folder / TABLES / "rollouts/likelihood/0-1/segment_0000.nc") as segment:
        noise = segment["buoyancy"].diff("time").isel(time=0)
    assert float(noise.std()) > 0 and abs(float(xr.corr(noise, noise.roll(x=1), "x").mean())) < 0.5


def test_an_edit_of_a_users_file_reruns_the_jobs_that_use_it(root, folder):
    def planned(name: str, edit) -> set[str]:
        path = folder / name
        before = path.read_text()
        path.write_text(edit(before))
        try:
            lines = snakemake(root, folder, "metrics", flags=("--dry-run",)).splitlines()
        finally:
            path.write_text(before)
        return {line.split()[0] for line in lines if len(line.split()) == 2 and line.split()[1].isdigit()} - {"total"}

    assert planned("surface.py", lambda text: text + "\n# a remark\n") == set()
    assert "simulate_trajectories" in planned("surface.py", lambda text: text.replace("/ 16)", "/ 17)"))
    jobs = planned("kept.py", lambda text: text.replace("1e-12", "1e-11"))
    assert "rollout_segment" in jobs and not {"train_model", "simulate_trajectories"} & jobs
    jobs = planned("gradients.py", lambda text: text.replace("0.5 *", "0.50001 *"))
    assert "compute_metrics" in jobs and not {"train_model", "rollout_segment"} & jobs


MISTAKES = {
    "no such file": ("systems.surface.solver.class", "surfaces.SurfaceFlow", "there is no surfaces.py in"),
    "no such class": ("systems.surface.solver.class", "surface.SurfaceFlo", "it defines SurfaceFlow"),
    "unknown parameter": ("systems.surface.solver.viskosity", 1.0, "did you mean 'viscosity'"),
    "missing parameter": ("systems.surface.solver.forcing", None, "the key 'forcing' is missing"),
    "unknown option": ("methods.kept.faktor", 2.0, "methods.kept.faktor"),
    "wrong model": ("methods.kept.models.surrogate", "sns_white", "needs 'pointwise'"),
    "no such method": ("methods.kept.kind", "kept.Kept", "it defines KeptSpectrum"),
    "no such objective": (
        "models.likelihood.objective",
        "likelihood.GaussianLikelyhood",
        "it defines GaussianLikelihood",
    ),
    "unknown option of a model": ("models.likelihood.members", 2, "models.likelihood.members"),
    "no such metric": ("metrics.user", ["gradients.palinstrofy"], "defines palinstrophy"),
    "not a name": ("metrics.user", ["palinstrophy"], "module.Name"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_users_file_is_one_line(root, folder, config, monkeypatch, mistake):
    monkeypatch.chdir(folder)
    for overlay in ("surface", "likelihood", "kept", "gradients"):
        merge(config, yaml.safe_load((folder / f"{overlay}.yaml").read_text()))
    validate(config)
    key, value, message = MISTAKES[mistake]
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(ConfigurationError) as caught:
        validate(config)
    assert message in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


# What a user writes by mistake in a file of a page: the file, the text, its replacement, and words of the message.
SLIPS = {
    "a function": (
        "surface.py", "class SurfaceFlow(System):", "def SurfaceFlow(): ...\n\n\nclass Rest(System):",
        "is a function, and a system is a class",
    ),
    "no base": ("surface.py", "(System)", "", "is no system; derive it from sns_core.systems.System"),
    "no velocity": ("surface.py", "def velocity", "def speed", "defines no velocity, which every system needs"),
    "no step": ("surface.py", "def step", "def advance", "defines no step or steps, which every system needs"),
    "no device": ("surface.py", "dtype, device):", "dtype, device=None):", None),
    "no dtype": ("surface.py", "forcing, dtype, device):", "forcing, device):", "takes no 'dtype', which the stages pass"),
    "no class method": ("kept.py", "    @classmethod\n", "", "its build is no class method; write @classmethod above it"),
    "no start": (
        "kept.py", "KeptSpectrum(Surrogate):", 'KeptSpectrum:\n    needs = {"surrogate": ("pointwise",)}\n',
        "defines no start, which every method needs",
    ),
    "no call": ("likelihood.py", "def __call__", "def loss", None),
    "no system for a metric": (
        "gradients.py", "extreme(frames, system)", "extreme(frames)", "takes frames; a metric is called with two arguments",
    ),
    "a metric with a default": ("gradients.py", "extreme(frames, system)", "extreme(frames, system, power=2)", None),
    "a class as a metric": ("gradients.py", "def extreme(frames, system)", "class extreme", "is a class, and a metric is a function"),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_users_class_or_function_is_one_line_before_anything_runs(
    folder, config, tmp_path, monkeypatch, slip
):
    name, text, replacement, message = SLIPS[slip]
    for path in folder.glob("*.py"):
        content = path.read_text()
        assert path.name != name or text in content
        (tmp_path / path.name).write_text(content.replace(text, replacement, 1) if path.name == name else content)
    monkeypatch.chdir(tmp_path)
    for overlay in ("surface", "likelihood", "kept", "gradients"):
        merge(config, yaml.safe_load((folder / f"{overlay}.yaml").read_text()))
    if message is None:  # the class has the rest from its base
        validate(config)
        return
    with pytest.raises(ConfigurationError) as caught:
        validate(config)
    assert message in str(caught.value) and "\n" not in str(caught.value), str(caught.value)
