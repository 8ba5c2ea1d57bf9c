"""Write trajectories of a rotating shallow-water flow: the worked example of data from files (docs/your-own-flow.md).

    python config/shallow_water.py data/shallow_water
    snakemake --cores 2 --configfile config/shallow-water.yaml

It needs numpy and xarray alone, takes a few minutes, and stands for any program that writes netCDF.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

HEIGHT, WIDTH = 32, 64  # points along y and x
LENGTH = 2 * np.pi  # of the longer side; points are equally far apart along both
DEPTH, GRAVITY, CORIOLIS = 1.0, 9.0, 1.0
FORCE, WAVES = 0.5, 2  # of the force along x, which varies along y
DRAG, VISCOSITY = 0.1, 1e-3
STEP, STEPS_PER_FRAME = 0.02, 10
SPIN_UP, FRAMES = 40.0, 300  # time units, frames of each trajectory
SPLITS = {"train": 16, "validation": 2, "test": 8}  # trajectories

SPACING = LENGTH / WIDTH
K_Y = 2 * np.pi * np.fft.fftfreq(HEIGHT, SPACING)[:, None]
K_X = 2 * np.pi * np.fft.rfftfreq(WIDTH, SPACING)[None, :]
RESOLVED = (abs(K_Y) < np.pi / SPACING * 2 / 3) & (abs(K_X) < np.pi / SPACING * 2 / 3)  # the rest would be aliased
Y = SPACING * np.arange(HEIGHT)
FORCING = np.fft.rfft2(np.repeat(FORCE * np.sin(2 * np.pi * WAVES / (SPACING * HEIGHT) * Y)[:, None], WIDTH, 1))


def tendency(state: np.ndarray) -> np.ndarray:
    """Return the time derivative of spectra (3, member, y, k) of eta, u and v, in the vector-invariant form."""
    eta_hat, u_hat, v_hat = state
    zeta_hat = 1j * (K_X * v_hat - K_Y * u_hat)
    eta, u, v, zeta = np.fft.irfft2(np.stack([eta_hat, u_hat, v_hat, zeta_hat]), s=(HEIGHT, WIDTH))
    head = np.fft.rfft2(GRAVITY * eta + 0.5 * (u**2 + v**2))
    depth, absolute = DEPTH + eta, CORIOLIS + zeta
    flux_x, flux_y, turn_u, turn_v = np.fft.rfft2(np.stack([depth * u, depth * v, absolute * v, -absolute * u]))
    loss = DRAG + VISCOSITY * (K_X**2 + K_Y**2)
    return RESOLVED * np.stack([
        -1j * (K_X * flux_x + K_Y * flux_y) - VISCOSITY * (K_X**2 + K_Y**2) * eta_hat,
        turn_u - 1j * K_X * head - loss * u_hat + FORCING,
        turn_v - 1j * K_Y * head - loss * v_hat,
    ])  # fmt: skip


def advance(state: np.ndarray) -> np.ndarray:
    """Return spectra after one time step of the classical Runge-Kutta scheme."""
    first = tendency(state)
    second = tendency(state + 0.5 * STEP * first)
    third = tendency(state + 0.5 * STEP * second)
    fourth = tendency(state + STEP * third)
    return state + STEP / 6 * (first + 2 * second + 2 * third + fourth)


def simulate(members: int, frames: int, spin_up: float, seed: int) -> np.ndarray:
    """Return frames (member, time, 3, y, x) of eta, u and v from random states, after the spin-up."""
    noise = np.random.default_rng(seed).normal(size=(3, members, HEIGHT, WIDTH))
    state = np.fft.rfft2(0.1 * noise) * RESOLVED * (K_X**2 + K_Y**2 < 36) * np.array([0, 1, 1])[:, None, None, None]
    for _ in range(round(spin_up / STEP)):
        state = advance(state)
    stored = np.empty((members, frames, 3, HEIGHT, WIDTH), dtype=np.float32)
    for frame in range(frames):
        stored[:, frame] = np.fft.irfft2(state, s=(HEIGHT, WIDTH)).swapaxes(0, 1)
        for _ in range(STEPS_PER_FRAME):
            state = advance(state)
    return stored


def write(folder: Path, splits: dict[str, int], frames: int, spin_up: float) -> None:
    """Write a file per split with the variables depth, u and v; the depth is far from zero."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, members) in enumerate(splits.items()):
        fields = simulate(members, frames, spin_up, seed) + np.array([DEPTH, 0, 0], np.float32)[:, None, None]
        axes = {"time": STEP * STEPS_PER_FRAME * np.arange(frames), "y": Y, "x": SPACING * np.arange(WIDTH)}
        variables = {
            name: (("member", "time", "y", "x"), fields[:, :, channel])
            for channel, name in enumerate(("depth", "u", "v"))
        }
        xr.Dataset(variables, {"member": np.arange(members), **axes}).to_netcdf(folder / f"{split}.nc")
        print(f"{folder}/{split}.nc: {members} trajectories of {frames} frames", flush=True)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "data/shallow_water"), SPLITS, FRAMES, SPIN_UP)
