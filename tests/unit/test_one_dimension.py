"""Frames of a single row of points: a field in one space dimension, from truncation to networks, measures and pictures."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from netCDF4 import Dataset

from sns_core.evaluation.coarse_solver import regridded
from sns_core.figures.frames import Rollout
from sns_core.grids import grid_of, grid_text, per_axis, with_longer_side
from sns_core.metrics.distributions import components
from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.networks.unet import PeriodicConv2d, PeriodicUNet, fold, unfold
from sns_core.shells import mode_weight, shell_index
from sns_core.systems.kuramoto_sivashinsky import KuramotoSivashinsky
from sns_core.systems.spectral import truncate

F64 = torch.float64
SMALL = dict(
    channels=1, frames_in=2, frames_out=2, width=4, multipliers=(1, 2), blocks=1, attention=True, levels=5, head_width=8
)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=F64)


def waves(points: int) -> torch.Tensor:
    x = torch.arange(points, dtype=F64) * 2 * math.pi / points
    return (torch.sin(3 * x) + 0.5 * torch.cos(5 * x + 0.3) + 0.25)[None, None, None]


def test_a_row_is_a_grid():
    assert grid_of((5, 1, 32)) == [1, 32] and grid_text([1, 32]) == "32 points" and grid_text(8) == "8 x 8"
    assert per_axis(2, (1, 32)) == (1, 2) and per_axis(2, 8) == per_axis(2, (8, 32)) == (2, 2)
    assert with_longer_side([1, 32], 48) == [1, 48] and with_longer_side(32, 48) == 48
    assert shell_index((1, 32)).tolist() == [list(range(17))] and mode_weight((1, 32)).sum() == 32


@pytest.mark.parametrize(("points", "target"), [(32, 16), (16, 24), (16, 16)])
def test_the_same_waves_stand_on_a_row_of_other_points(points, target):
    torch.testing.assert_close(regridded(waves(points), (1, target)), waves(target), rtol=0, atol=1e-14)


def test_a_row_is_no_square():
    with pytest.raises(ValueError, match="1 x 32 to 16 x 16"):
        truncate(waves(32), 16)
    for wrong in (32, [1, 31], [2, 32], [1, 4]):
        with pytest.raises(ValueError, match="a row of N points"):
            KuramotoSivashinsky(wrong)


def test_the_energy_of_a_row_is_half_its_mean_square_each_wave_in_its_own_shell():
    flow = KuramotoSivashinsky((1, 32))
    u, v = flow.frame_velocity(waves(32))
    k, energy = kinetic_energy_spectrum(u, v, flow.length)
    spacing = 2 * math.pi / flow.length
    expected = torch.zeros(17, dtype=F64)
    expected[0], expected[3], expected[5] = 0.5 * 0.25**2, 0.25, 0.25 * 0.5**2
    torch.testing.assert_close(energy[0] * spacing, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(energy[0].sum() * spacing, flow.kinetic_energy(waves(32))[0, 0])
    torch.testing.assert_close(k, spacing * torch.arange(17, dtype=F64))


def test_the_gradient_of_a_row_has_one_component():
    flow = KuramotoSivashinsky((1, 4096))
    gradient = components(flow, waves(4096), *flow.frame_velocity(waves(4096)))["gradient"]
    x = torch.arange(4096, dtype=F64) * 2 * math.pi / 4096
    exact = 2 * math.pi / flow.length * (3 * torch.cos(3 * x) - 2.5 * torch.sin(5 * x + 0.3))
    assert gradient.shape == (1, 1, 1, 1, 4096)
    torch.testing.assert_close(gradient.flatten(), exact, rtol=0, atol=5e-3)


def test_patches_of_a_row_are_folded_and_come_back():
    fields = draw(2, 3, 1, 12)
    folded = fold(fields, (1, 2))
    assert folded.shape == (2, 6, 1, 6)
    torch.testing.assert_close(folded[:, 2:4].transpose(1, 3).flatten(1), fields[:, 1].flatten(1))
    assert torch.equal(unfold(folded, (1, 2)), fields)


def randomised(network: PeriodicUNet) -> PeriodicUNet:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("head_features", ["bottleneck", "encoder"])
def test_the_network_of_a_row_is_that_of_a_square_whose_rows_are_equal(head_features):
    """A square network whose kernels are zero off their middle row treats each row by itself."""
    row = randomised(PeriodicUNet(**SMALL, head_features=head_features, resolution=(1, 16)))
    square = PeriodicUNet(**SMALL, head_features=head_features, resolution=16).eval()
    with torch.no_grad():
        for mine, theirs in zip(row.modules(), square.modules(), strict=True):
            for parameter, wider in zip(mine.parameters(False), theirs.parameters(False), strict=True):
                wider.copy_(parameter if parameter.shape == wider.shape else F.pad(parameter, (0, 0, 1, 1)))
    frames = draw(3, 2, 1, 1, 16).float()
    (fields, logits), (wide, wide_logits) = row(frames), square(frames.expand(3, 2, 1, 16, 16))
    assert fields.shape == frames.shape
    torch.testing.assert_close(fields.expand_as(wide), wide, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, wide_logits, rtol=1e-4, atol=1e-5)
    assert all(m.kernel_size[0] == 1 for m in row.modules() if isinstance(m, PeriodicConv2d))


@pytest.mark.parametrize("patch", [1, 2])
def test_the_network_of_a_row_commutes_with_shifts(patch):
    network = randomised(PeriodicUNet(**SMALL, patch=patch, resolution=(1, 16)))
    frames, shift = draw(3, 2, 1, 1, 16).float(), 2 * patch
    torch.testing.assert_close(network(frames.roll(shift, -1))[0], network(frames)[0].roll(shift, -1))


def test_the_heads_of_a_row_may_see_every_place():
    network = randomised(PeriodicUNet(**SMALL, head_features="bottleneck_grid", resolution=(1, 16)))
    assert network(draw(3, 2, 1, 1, 16).float())[1].shape == (3, 2, 6)


def test_a_network_of_rows_takes_no_squares_and_the_reverse():
    row, square = (PeriodicUNet(**SMALL, resolution=grid) for grid in ((1, 16), 16))
    row.check_resolution([1, 32])
    for network, wrong in ((row, 16), (row, [1, 15]), (square, [1, 16])):
        with pytest.raises(ValueError, match="cannot halve"):
            network.check_resolution(wrong)


def test_a_row_is_shown_with_the_frames_before_it(tmp_path):
    steps, values = 100, np.arange(101.0)
    for index, part in enumerate((slice(0, 61), slice(61, 101))):
        with Dataset(tmp_path / f"{index}.nc", "w") as file:
            for name, size in {"member": 1, "time": None, "layer": 1, "y": 1, "x": 8}.items():
                file.createDimension(name, size)
            file.createVariable("member", "i4", ("member",))[:] = [0]
            time = file.createVariable("time", "f8", ("time",))
            time.units = "1"
            time[:] = 0.5 * values[part]
            u = file.createVariable("u", "f4", ("member", "time", "layer", "y", "x"))
            u[:] = np.tile(values[part][:, None], 8)[None, :, None, None]
            file.setncatts({"first_step": part.start, "steps": steps - part.start if index else 60})
    with Rollout([tmp_path / "0.nc", tmp_path / "1.nc"], 0.5) as rollout:
        assert rollout.points == (1, 8) and rollout.grid == (8, 8)
        step, picture = rollout.picture(0, 80)
        assert step == 80 and picture.shape == (1, 8, 8)
        np.testing.assert_array_equal(picture[0, :, 3], np.arange(73, 81))
        early = rollout.picture(0, 2)[1][0, :, 0]
        np.testing.assert_array_equal(early[-3:], [0, 1, 2])
        assert np.isnan(early[:-3]).all() and rollout.picture(0, 101) is None
