"""Kolmogorov flow against jax-cfd's own arrays, exact solutions, conservation laws and symmetries."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sns_core.systems import InstabilityError, KolmogorovFlow, build_system
from sns_core.systems.kolmogorov import CFL_LIMIT
from sns_core.systems.schemes import ALPHA
from sns_core.systems.spectral import SpectralGrid, symmetrise, truncate

REFERENCE = Path(__file__).parents[1] / "reference"


def load(name):
    with np.load(REFERENCE / name, allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files if archive[key].dtype.kind in "fcu"}


@pytest.fixture(scope="module")
def steps():
    return load("kolmogorov_64_f64.npz")


@pytest.fixture(scope="module")
def start():
    return load("kolmogorov_ic_64.npz")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def axis(n):
    return torch.arange(n, dtype=torch.float64) * 2 * math.pi / n


def random_state(flow, members, seed):
    return flow.initial_state(members, [seeded(seed + member) for member in range(members)])


def make_hermitian(spectrum):
    for column in (0, -1):
        symmetrise(spectrum[..., column])
    return spectrum


def within_filter(flow, field):
    """Return the part of a field that the 2/3 filter keeps."""
    return flow.state({"spectrum": make_hermitian(flow.start(field)["spectrum"] * flow.filter)})


def courant(flow, state):
    u, v = flow.velocity(state)
    return (u.abs() + v.abs()).amax((1, 2, 3)) * flow.dt * flow.resolution / flow.length


def relative(result, expected):
    return float((result - expected).double().abs().max() / expected.std())


# --- parity with jax-cfd ---


@pytest.mark.parametrize("viscosity", ["1e-3", "1e-4"])
@pytest.mark.parametrize("count", [1, 10, 200])
def test_steps_in_float64_are_those_of_jax_cfd(steps, viscosity, count):
    flow = KolmogorovFlow(64, float(viscosity), 1e-3)
    result = flow.advance(steps["w0"][None, None], count)[0, 0]
    assert relative(result, steps[f"w_nu{viscosity}_s{count}"]) < 1e-12


@pytest.mark.parametrize("viscosity", ["1e-3", "1e-4"])
@pytest.mark.parametrize(("count", "tolerance"), [(1, 1e-6), (10, 3e-6), (200, 2e-4)])
def test_steps_in_float32_stay_near_jax_cfd(steps, viscosity, count, tolerance):
    flow = KolmogorovFlow(64, float(viscosity), 1e-3, dtype=torch.float32)
    result = flow.advance(steps["w0"].float()[None, None], count)[0, 0]
    assert result.dtype == torch.float32
    assert relative(result, steps[f"w_nu{viscosity}_s{count}"]) < tolerance


def test_filter_is_that_of_jax_cfd_bit_for_bit(steps):
    assert torch.equal(KolmogorovFlow(64).filter, steps["filter"].bool())


@pytest.mark.parametrize(("n", "low", "high", "last"), [(128, -43, 41, 42), (256, -85, 84, 85), (512, -171, 169, 170)])
def test_filter_keeps_the_modes_of_jax_cfd_at_other_resolutions(n, low, high, last):
    kx, ky = torch.fft.fftfreq(n, 1 / n), torch.arange(n // 2 + 1)
    expected = ((kx >= low) & (kx <= high))[:, None] & (ky <= last)[None, :]
    assert torch.equal(KolmogorovFlow(n).filter, expected)


@pytest.mark.parametrize("n", [32, 64, 96])
def test_symmetric_filter_keeps_a_square(n):
    kx, ky = torch.fft.fftfreq(n, 1 / n)[:, None], torch.arange(n // 2 + 1)[None, :]
    expected = (kx.abs() < n // 3) & (ky < n // 3)
    assert torch.equal(KolmogorovFlow(n, symmetric_filter=True).filter, expected)


def test_explicit_tendency_is_that_of_jax_cfd(steps):
    flow, expected = KolmogorovFlow(64), steps["explicit0_hat"]
    result = flow.tendency(flow.start(steps["w0"][None, None])["spectrum"])[0]
    assert (result - expected).abs().max() < 1e-13 * expected.abs().max()


def test_wavenumbers_are_those_of_jax_cfd(steps):
    grid = SpectralGrid(64)
    # jax-cfd multiplies cycles per length by 2 pi, which rounds.
    assert (grid.k_first[:, 0] - steps["kx"]).abs().max() < 1e-13
    assert (grid.k_last[0] - steps["ky"]).abs().max() < 1e-13


def test_velocity_is_that_of_jax_cfd(steps):
    u, v = KolmogorovFlow(64).velocity(steps["w0"][None, None])
    assert relative(u[0, 0], steps["vel_u0"]) < 1e-13
    assert relative(v[0, 0], steps["vel_v0"]) < 1e-13


def test_vorticity_of_the_velocity_is_the_vorticity():
    flow, grid = KolmogorovFlow(32, symmetric_filter=True), SpectralGrid(32)
    w = within_filter(flow, random_state(flow, 2, seed=1))
    u, v = flow.velocity(w)
    curl = grid.inverse(1j * grid.k_first * grid.forward(v) - 1j * grid.k_last * grid.forward(u))
    assert relative(curl, w) < 1e-13


def test_velocity_of_frames_is_that_of_states_transposed():
    flow = KolmogorovFlow(32)
    w = random_state(flow, 2, seed=2)
    for state_component, frame_component in zip(
        flow.velocity(truncate(w, 16)), flow.frame_velocity(flow.observe(w, 16)), strict=True
    ):
        assert torch.equal(frame_component, state_component.transpose(-1, -2))


def test_velocity_does_not_depend_on_earlier_calls():
    fresh, used = KolmogorovFlow(64), KolmogorovFlow(64)
    w = random_state(fresh, 1, seed=3)
    used.velocity(w.float())
    assert torch.equal(used.velocity(w)[0], fresh.velocity(w)[0])


@pytest.mark.parametrize("stage", ["filtered", "solenoidal", "curl"])
def test_initial_condition_follows_jax_cfd_stage_by_stage(start, stage):
    flow = KolmogorovFlow(64)
    result, expected = {
        "filtered": lambda: (flow.filtered(start["noise"]), start["filtered"]),
        "solenoidal": lambda: (flow.solenoidal(start["filtered"], 7.0), start["v0"]),
        "curl": lambda: (flow.curl(start["v0"]), start["w0"]),
    }[stage]()
    assert relative(result, expected) < 1e-13


@pytest.mark.parametrize("m", [128, 64, 32])
def test_spectral_truncation_is_that_of_jax_cfd(m):
    fields = load("kolmogorov_downsample.npz")
    assert relative(truncate(fields["w256"], m), fields[f"w{m}_from_256"]) < 1e-13


# --- exact solutions ---


@pytest.mark.parametrize("dt", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("viscosity", [1e-3, 1e-1])
def test_laminar_state_is_a_fixed_point_for_any_time_step(dt, viscosity):
    flow = KolmogorovFlow(64, viscosity, dt)
    laminar = (-4 * torch.cos(4 * axis(64)) / (16 * viscosity + 0.1)).expand(1, 1, 64, 64)
    # 40 steps include the first check of the CFL guard, which must accept a steady state.
    assert relative(flow.advance(laminar, 40), laminar) < 1e-12


@pytest.mark.parametrize("mode", [(3, 5), (0, 4), (2, 0), (-7, 6)])
@pytest.mark.parametrize(("viscosity", "drag", "dt"), [(1e-2, 0.1, 0.05), (0.1, 0.0, 0.5)])
def test_a_plane_wave_decays_by_the_crank_nicolson_factors(mode, viscosity, drag, dt):
    flow = KolmogorovFlow(32, viscosity, dt, drag, forcing_scale=0.0)
    x, rate = axis(32), -viscosity * (mode[0] ** 2 + mode[1] ** 2) - drag
    wave = torch.cos(mode[0] * x[:, None] + mode[1] * x[None, :] + 0.3)[None, None]
    factor = 1.0
    for start, end in itertools.pairwise(ALPHA):
        mu = 0.5 * dt * (end - start)
        factor *= (1 + mu * rate) / (1 - mu * rate)
    assert abs(factor - math.exp(rate * dt)) < 0.1  # the factor is near the exact one, and not only that of the scheme
    for count in (1, 10):
        assert (flow.advance(wave, count) - factor**count * wave).abs().max() < 1e-13


def test_taylor_green_vortices_decay_at_the_second_order_of_crank_nicolson():
    x, errors = axis(32), []
    w = 2 * (torch.cos(3 * x)[:, None] * torch.cos(3 * x)[None, :])[None, None]
    for count in (50, 100):
        flow = KolmogorovFlow(32, 0.05, 1 / count, drag=0.0, forcing_scale=0.0)
        errors.append(float((flow.advance(w, count) - math.exp(-18 * 0.05) * w).abs().max()))
    assert errors[0] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.05)


# --- order in time ---


def orders(viscosity, drag, counts):
    """Return the observed orders of convergence between successive step counts over 0.2 time units."""
    initial = random_state(KolmogorovFlow(32), 1, seed=1)

    def end(count):
        return KolmogorovFlow(32, viscosity, 0.2 / count, drag).advance(initial, count)

    exact = end(1280)
    errors = [float((end(count) - exact).norm()) for count in counts]
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


def test_advection_is_of_order_four_in_time():
    assert orders(0.0, 0.0, (20, 40, 80, 160)) == pytest.approx([4, 4, 4], abs=0.05)


def test_order_falls_to_two_where_viscosity_dominates_the_error():
    coarse, *fine = orders(0.05, 0.1, (10, 20, 40, 80, 160))
    assert coarse > 3.5
    assert fine[1:] == pytest.approx([2, 2], abs=0.15)


# --- conservation and budgets ---


@pytest.mark.parametrize("n", [32, 48, 64])
def test_advection_conserves_energy_and_enstrophy_with_the_symmetric_filter(n):
    flow = KolmogorovFlow(n, forcing_scale=0.0, symmetric_filter=True)
    # In white noise every mode within the filter has the same enstrophy, so the test notices a leak of any mode.
    w = within_filter(flow, torch.randn(2, 1, n, n, generator=seeded(3), dtype=torch.float64))
    spectrum = flow.start(w)["spectrum"]
    tendency = flow.state({"spectrum": make_hermitian(flow.tendency(spectrum))})
    psi = flow.state({"spectrum": spectrum * SpectralGrid(n).inverse_laplacian})
    for density in (w, psi):
        assert abs(float((density * tendency).mean() / (density.std() * tendency.std()))) < 1e-13


def test_kinetic_energy_obeys_its_budget():
    n, viscosity, dt = 64, 5e-3, 2e-3
    flow = KolmogorovFlow(n, viscosity, dt, symmetric_filter=True)
    # The solver filters the advection, but never the state. Start without the modes beyond the filter.
    before = flow.advance(within_filter(flow, 0.5 * random_state(flow, 2, seed=1)), 100)

    def energy(w):
        u, v = flow.velocity(w)
        return (u**2 + v**2).mean((1, 2, 3)) / 2

    middle, after = flow.advance(before, 1), flow.advance(before, 2)
    u, _ = flow.velocity(middle)
    forcing = (u * torch.sin(4 * axis(n))).mean((1, 2, 3))
    terms = torch.stack([forcing, -0.2 * energy(middle), -viscosity * (middle**2).mean((1, 2, 3))])
    change = (energy(after) - energy(before)) / (2 * dt)
    assert ((change - terms.sum(0)).abs() < 1e-4 * terms.abs().amax(0)).all()


# --- batches, restarts, devices ---


def test_a_batch_equals_its_members_run_singly():
    flow = KolmogorovFlow(48, dt=5e-3)
    w = random_state(flow, 4, seed=5)
    singly = torch.cat([flow.advance(w[member : member + 1], 50) for member in range(4)])
    # Transforms vectorise over the batch in another order, so equality is to rounding, not bitwise.
    assert relative(flow.advance(w, 50), singly) < 1e-12


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("part", [1, 7, 32, 48])
def test_runs_in_parts_are_bitwise_one_run(part, dtype, device):
    flow = KolmogorovFlow(32, dt=5e-3, dtype=dtype, device=device)
    carry = flow.start(random_state(flow, 2, seed=7))
    whole = flow.run(carry, 2 * 48 // part * part)
    for _ in range(2 * 48 // part):
        carry = flow.run(carry, part)
    assert torch.equal(carry["spectrum"], whole["spectrum"])


def test_steps_keep_the_spectrum_exactly_that_of_a_real_field():
    flow = KolmogorovFlow(32, dt=5e-3)
    spectrum = flow.run(flow.start(random_state(flow, 2, seed=7)), 50)["spectrum"]
    # The inverse transforms of a GPU and of a CPU disagree on columns without this symmetry.
    for column in (0, -1):
        mirrored = spectrum[..., column].flip(-1).roll(1, -1).conj()
        assert torch.equal(spectrum[..., column], mirrored)


def test_a_step_leaves_its_carry_alone():
    flow = KolmogorovFlow(32, dt=5e-3)
    carry = flow.start(random_state(flow, 2, seed=7))
    before = carry["spectrum"].clone()
    flow.step(carry)
    assert torch.equal(carry["spectrum"], before)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "count", "tolerance"), [(torch.float64, 50, 1e-12), (torch.float32, 10, 3e-6)])
def test_gpu_equals_cpu(dtype, count, tolerance):
    on_cpu, on_gpu = (KolmogorovFlow(64, dt=1e-3, dtype=dtype, device=device) for device in ("cpu", "cuda"))
    w = random_state(on_cpu, 3, seed=9)
    assert relative(random_state(on_gpu, 3, seed=9).cpu(), w) < max(1e-12, float(torch.finfo(dtype).eps) * 10)
    result = on_gpu.advance(w.to("cuda"), count)
    assert result.is_cuda
    assert relative(result.cpu(), on_cpu.advance(w, count)) < tolerance


# --- symmetries ---


def frames_of(flow, state):
    return flow.observe(state, flow.resolution)[:, None]


def states_of(frames):
    return frames[:, 0].transpose(-1, -2)


@pytest.mark.parametrize("symmetries", ["translations", "all"])
def test_advancing_an_augmented_state_is_augmenting_the_advanced_state(symmetries):
    flow = KolmogorovFlow(32, 1e-2, 5e-3, symmetric_filter=True)
    # Nyquist modes have no counterpart of the other sign, so symmetries hold for fields without them.
    w = within_filter(flow, random_state(flow, 16, seed=20))
    moved = flow.augment(frames_of(flow, w), seeded(0), symmetries)
    first = frames_of(flow, flow.advance(states_of(moved), 20))
    then = flow.augment(frames_of(flow, flow.advance(w, 20)), seeded(0), symmetries)
    assert relative(first, then) < 1e-12


def symmetries_drawn(flow, n, symmetries):
    """Return the set of (x, y of the pixel that moved to the corner, flipped in x, flipped in y) among many samples."""
    x, y = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="xy")
    frame = 1.0 + x + n * y  # the value of a pixel encodes its origin
    drawn = set()
    for sample in flow.augment(frame.expand(4000, 1, 1, n, n), seeded(1), symmetries)[:, 0, 0]:
        corner, right, up = (int(sample[j].abs()) - 1 for j in ((0, 0), (0, 1), (1, 0)))
        flipped_x, flipped_y = (right - corner) % n != 1, (up // n - corner // n) % n != 1
        assert bool((sample < 0).all()) == (flipped_x != flipped_y)
        drawn.add((corner % n, corner // n, flipped_x, flipped_y))
    return drawn


WHOLE_PERIODS, HALF_PERIODS = (0, 4, 8, 12), (2, 6, 10, 14)  # of forcing wavenumber 4 on 16 points


@pytest.mark.parametrize(
    ("symmetries", "rows_of"),
    [
        ("translations", {(False, False): WHOLE_PERIODS}),
        ("all", {(False, False): WHOLE_PERIODS, (True, True): WHOLE_PERIODS,
                 (True, False): HALF_PERIODS, (False, True): HALF_PERIODS}),
    ],
)  # fmt: skip
def test_augmentation_draws_every_symmetry_and_no_other(symmetries, rows_of):
    flow = KolmogorovFlow(16, forcing_wavenumber=4)
    expected = {(x, y, *flips) for flips, rows in rows_of.items() for x in range(16) for y in rows}
    assert symmetries_drawn(flow, 16, symmetries) == expected


def test_augmentation_moves_all_frames_and_channels_of_a_sample_alike():
    flow = KolmogorovFlow(32)
    frame = torch.randn(8, 1, 1, 32, 32, generator=seeded(4))
    scales = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]).view(1, 3, 2, 1, 1)
    moved = flow.augment(frame * scales, seeded(5))
    assert torch.equal(moved, moved[:, :1, :1] * scales)
    assert not torch.equal(moved[:, :1, :1], frame)


def test_landmarks_are_the_forcing_and_look_the_same_after_every_symmetry():
    flow = KolmogorovFlow(32, forcing_wavenumber=4)
    still = flow.landmarks(16)
    torch.testing.assert_close(still.square().mean((1, 2)), torch.ones(1))
    forcing = flow.observe(
        torch.fft.irfft2(flow.tendency(torch.zeros(1, 32, 17, dtype=torch.complex128)))[:, None], 16
    )[0]
    torch.testing.assert_close(still, (forcing / forcing.square().mean().sqrt()).float())
    for symmetries in ("translations", "all"):
        moved = flow.augment(still.expand(64, 1, 1, 16, 16), seeded(7), symmetries)
        torch.testing.assert_close(moved, still.expand(64, 1, 1, 16, 16), rtol=0, atol=1e-6)


def test_augmentation_without_a_whole_half_period_never_reflects():
    flow = KolmogorovFlow(32)
    # On 20 points half a forcing period is 2.5 pixels: the reflection is no symmetry of such frames.
    moved = flow.augment(torch.ones(64, 1, 1, 20, 20), seeded(6))
    assert (moved == 1).all()


# --- initial states ---


def test_a_members_initial_state_does_not_depend_on_its_batch():
    flow = KolmogorovFlow(32)
    together = random_state(flow, 4, seed=30)
    alone = flow.initial_state(1, [seeded(32)])
    assert torch.equal(together[2:3], alone)
    assert relative(together[1:2], alone) > 0.1


def test_a_number_of_random_streams_unlike_the_number_of_members_is_refused():
    with pytest.raises(ValueError, match="3"):
        KolmogorovFlow(32).initial_state(3, [seeded(0)])


def test_one_generator_serves_all_members():
    flow = KolmogorovFlow(32)
    w = flow.initial_state(3, seeded(1))
    assert w.shape == (3, 1, 32, 32)
    assert torch.equal(w, flow.initial_state(3, seeded(1)))
    assert relative(w[0], w[1]) > 0.1


def test_initial_velocity_has_maximum_speed_seven():
    flow = KolmogorovFlow(128)
    noise = torch.randn(3, 2, 128, 128, generator=seeded(8), dtype=torch.float64)
    velocity = flow.solenoidal(flow.filtered(noise), 7.0)
    assert velocity.norm(dim=1).amax((-2, -1)).numpy() == pytest.approx(7, rel=1e-14)
    u, v = flow.velocity(random_state(flow, 3, seed=8))
    # The vorticity comes from velocities on a staggered grid, so a collocated inversion shifts them by half a cell.
    assert (u**2 + v**2).sqrt().amax((1, 2, 3)).numpy() == pytest.approx(7, rel=0.03)


def test_initial_velocity_has_its_energy_around_wavenumber_four():
    flow, grid = KolmogorovFlow(64), SpectralGrid(64)
    u, v = flow.velocity(random_state(flow, 16, seed=40))
    energy = (grid.forward(u).abs() ** 2 + grid.forward(v).abs() ** 2).mean((0, 1))[:, 1:-1]
    shells = torch.bincount(grid.k_squared.sqrt().round().long()[:, 1:-1].flatten(), energy.flatten())
    assert 3 <= int(shells.argmax()) <= 5


# --- mistakes ---


def test_a_broken_cfl_bound_names_member_step_number_and_a_time_step_that_would_do():
    scales = torch.tensor([0.01, 0.01, 1.0, 0.01], dtype=torch.float64).view(4, 1, 1, 1)
    flow = KolmogorovFlow(32, dt=0.2)
    w = random_state(flow, 4, seed=50) * scales
    with pytest.raises(InstabilityError) as caught:
        flow.advance(w, 5)
    error = caught.value
    assert (error.member, error.step) == (2, 1)
    assert error.cfl > CFL_LIMIT
    for words in ("member 2", "step 1", f"{error.cfl:.3g}", f"{error.suggested_dt:g}"):
        assert words in str(error)
    assert KolmogorovFlow(32, dt=error.suggested_dt).advance(w, round(1.0 / error.suggested_dt)).isfinite().all()


@pytest.mark.parametrize("excess", [1.5, 5.0])
def test_the_suggested_time_step_is_not_far_below_the_bound(excess):
    w = random_state(KolmogorovFlow(32), 1, seed=50)
    bound = float(CFL_LIMIT / courant(KolmogorovFlow(32, dt=1.0), w))
    with pytest.raises(InstabilityError) as caught:
        KolmogorovFlow(32, dt=excess * bound).advance(w, 5)
    # The suggestion is half the bound, rounded down to 1, 2 or 5 times a power of ten.
    assert bound / 10 < caught.value.suggested_dt < 0.75 * bound


def test_an_instability_names_the_first_step_that_broke_the_bound():
    flow = KolmogorovFlow(32, viscosity=1e-2, dt=0.02, forcing_scale=30.0)
    carry = flow.start(random_state(flow, 2, seed=60) * torch.tensor([0.01, 0.1], dtype=torch.float64).view(2, 1, 1, 1))
    with pytest.raises(InstabilityError) as caught:
        flow.run(carry, 200)
    broke = []
    for step in range(1, caught.value.step + 1):
        carry = flow.step(carry)
        broke += [(step, int(m)) for m in (courant(flow, flow.state(carry)) > CFL_LIMIT).nonzero()]
    assert broke[0] == (caught.value.step, caught.value.member)
    assert caught.value.step > 1


def test_a_member_that_is_nan_is_named():
    flow = KolmogorovFlow(32)
    w = random_state(flow, 3, seed=70)
    w[1, 0, 3, 4] = math.nan
    with pytest.raises(InstabilityError, match=r"member 1 .*NaN") as caught:
        flow.advance(w, 3)
    assert caught.value.member == 1


def test_a_steady_member_is_not_blamed_for_the_instability_of_another():
    flow = KolmogorovFlow(64, dt=0.03)
    laminar = (-4 * torch.cos(4 * axis(64)) / 0.116).expand(1, 1, 64, 64)
    flow.advance(laminar, 5)
    with pytest.raises(InstabilityError) as caught:
        flow.advance(torch.cat([laminar, random_state(flow, 1, seed=0)]), 5)
    assert caught.value.member == 1


def test_the_suggested_time_step_suits_every_member():
    flow = KolmogorovFlow(32, dt=0.2)
    w = random_state(flow, 2, seed=80) * torch.tensor([1.0, 30.0], dtype=torch.float64).view(2, 1, 1, 1)
    with pytest.raises(InstabilityError) as caught:
        flow.advance(w, 5)
    assert KolmogorovFlow(32, dt=caught.value.suggested_dt).advance(w, 50).isfinite().all()


def test_the_suggested_time_step_suits_a_state_that_blows_up_at_once():
    flow = KolmogorovFlow(32, dt=1e-2)
    w = 1e4 * random_state(flow, 1, seed=90)
    needed = float(CFL_LIMIT / courant(flow, w) * flow.dt)
    with pytest.raises(InstabilityError) as caught:
        flow.advance(w, 5)
    assert needed / 10 < caught.value.suggested_dt < needed


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"viscosity": -1e-3}, "viscosity"),
        ({"drag": -0.1}, "drag"),
        ({"dt": 0.0}, "dt"),
        ({"dt": -1e-3}, "dt"),
        ({"resolution": 63}, "resolution 63"),
        ({"forcing_wavenumber": 0}, "forcing_wavenumber"),
        ({"forcing_wavenumber": 21}, "forcing_wavenumber"),
        pytest.param(
            {"viscosity": math.nan},
            "viscosity",
        ),
        pytest.param(
            {"dt": math.nan},
            "dt",
        ),
    ],
)
def test_parameters_out_of_range_are_named(parameters, name):
    with pytest.raises(ValueError, match=name):
        KolmogorovFlow(**parameters)


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (1, 2, 64, 64), (1, 1, 32, 32), (1, 1, 64, 32)])
def test_a_state_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="expected \\(B, 1, 64, 64\\)"):
        KolmogorovFlow(64).advance(torch.zeros(shape), 1)


@pytest.mark.parametrize("m", [34, 15])
def test_truncation_to_a_larger_or_odd_grid_is_refused(m):
    with pytest.raises(ValueError, match=f"{m} x {m}"):
        truncate(torch.zeros(1, 1, 32, 32), m)


def test_systems_are_built_by_name():
    flow = build_system("KolmogorovFlow", {"resolution": 32, "viscosity": 0.02})
    assert isinstance(flow, KolmogorovFlow)
    assert (flow.resolution, flow.viscosity, flow.dtype) == (32, 0.02, torch.float32)
    with pytest.raises(ValueError, match=r"'Burgers'.*KolmogorovFlow"):
        build_system("Burgers", {})


# --- the stress form ---


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_stress_form_equals_the_advective_one_within_the_filter(symmetric):
    options = {"dt": 5e-3, "symmetric_filter": symmetric}
    advective, stress = KolmogorovFlow(48, **options), KolmogorovFlow(48, advection="stress", **options)
    w = within_filter(advective, random_state(advective, 3, seed=5))
    spectrum = advective.start(w)["spectrum"]
    assert relative(stress.tendency(spectrum).abs(), advective.tendency(spectrum).abs()) < 1e-12
    assert relative(stress.advance(w, 100), advective.advance(w, 100)) < 1e-12


def test_the_stress_form_filters_its_start():
    flow = KolmogorovFlow(48, dt=5e-3, advection="stress")
    w = random_state(flow, 2, seed=5)
    once = flow.state(flow.start(w))
    assert relative(once, w) > 1e-3  # the filter has an effect
    assert relative(flow.state(flow.start(once)), once) < 1e-14


def test_an_unknown_form_of_advection_is_refused():
    with pytest.raises(ValueError, match="advection 'flux'"):
        KolmogorovFlow(32, advection="flux")


@pytest.mark.parametrize("advection", ["advective", "stress"])
def test_groups_of_members_that_fit_the_caches_change_nothing(advection):
    flow = KolmogorovFlow(64, dt=5e-3, advection=advection, dtype=torch.float32)
    carry = flow.start(random_state(flow, 7, seed=5))
    whole = flow.run(carry, 5)["spectrum"]
    flow.cache_points = 2 * 64**2
    assert torch.equal(flow.run(carry, 5)["spectrum"], whole)
