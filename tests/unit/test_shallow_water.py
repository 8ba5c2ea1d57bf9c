"""The worked example of data from files: its solver, and the files that it writes, as `config/shallow-water.yaml` reads them."""

import importlib.util

import numpy as np
import pytest
import xarray as xr
import yaml

from sns_core.data.source import facts_of


@pytest.fixture
def example(root):
    specification = importlib.util.spec_from_file_location("shallow_water", root / "config" / "shallow_water.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_resting_wave_travels_with_the_speed_of_inertia_gravity_waves(example, monkeypatch):
    """Without force and loss, a wave of small amplitude has the frequency sqrt(f^2 + g H k^2)."""
    monkeypatch.setattr(example, "FORCING", 0 * example.FORCING)
    monkeypatch.setattr(example, "DRAG", 0.0)
    monkeypatch.setattr(example, "VISCOSITY", 0.0)
    k, f = 3.0, example.CORIOLIS
    frequency = np.sqrt(f**2 + example.GRAVITY * example.DEPTH * k**2)
    phase = k * example.SPACING * np.arange(example.WIDTH)
    amplitude = 1e-6

    def wave(time: float) -> np.ndarray:
        argument = (phase - frequency * time)[None, :].repeat(example.HEIGHT, 0)
        u = frequency / k * np.cos(argument)
        return amplitude * np.stack([np.cos(argument), u, f / k * np.sin(argument)])[:, None]

    state = np.fft.rfft2(wave(0.0))
    for _ in range(20):
        state = example.advance(state)
    result = np.fft.irfft2(state, s=(example.HEIGHT, example.WIDTH))
    np.testing.assert_allclose(result, wave(20 * example.STEP), atol=3e-4 * amplitude)


def test_the_mean_depth_is_conserved(example):
    depth = example.simulate(2, 4, 0.2, seed=1)[:, :, 0]
    np.testing.assert_allclose(depth.mean((-1, -2)), 0.0, atol=1e-7)
    assert depth.std() > 1e-4


def test_its_files_are_what_the_overlay_reads(example, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overlay = yaml.safe_load((root / "config" / "shallow-water.yaml").read_text())
    block = overlay["systems"]["shallow_water"]["source"]
    example.write(tmp_path / "data" / "shallow_water", {"train": 2, "validation": 1, "test": 2}, 4, 0.0)
    defaults = {
        "dims": {},
        "join": None,
        "pieces": 1,
        "spin_up": 0.0,
        "length": None,
        "periodic": {"y": True, "x": True},
    }
    homogeneous = {"y": False, **block["homogeneous"]}
    files = {split: [path] for split, path in block["files"].items()}
    facts = facts_of({**defaults, **block, "files": files, "homogeneous": homogeneous, "start": 1})
    parameters = facts["parameters"]
    assert facts["resolution"] == [32, 64] and facts["step"] == pytest.approx(0.2)
    assert parameters["offset"] == [1.0, 0.0, 0.0] and parameters["length"] == pytest.approx(2 * np.pi)
    with xr.open_dataset("data/shallow_water/test.nc") as dataset:
        assert set(dataset.data_vars) == {"depth", "u", "v"}
