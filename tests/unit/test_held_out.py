"""Measures of a denoiser on held-out frames: exact values for methods whose refinement is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from sns_core.diffusion import NoiseSchedule
from sns_core.evaluation.denoiser_diagnosis import (
    DRIFTS,
    _amplitudes_of_drifts,
    _detected_drifts,
    _estimated_levels,
    _HeldOutPairs,
    _one_step_errors,
    _restored_shares,
)
from sns_core.figures.held_out import plot_held_out
from sns_core.methods import CalibratedRefinement, EstimatedLevels, FrameSpace, Refinement
from sns_core.metrics.distances import WORST
from sns_core.metrics.held_out import MEASURES, agreement, compare_held_out, held_out_measures
from sns_core.shells import mode_weight, shell_index
from sns_core.theory.compute import field_process


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, -0.2])
def test_the_share_taken_back_is_that_of_a_refinement_that_damps_towards_the_truth(share):
    stream = torch.Generator().manual_seed(3)
    previous, following = (torch.randn(6, 1, 16, 16, generator=stream) for _ in range(2))
    bias = torch.randn(6, 1, 16, 16, generator=stream)  # what the refinement does to true pairs, too

    def refine(prev, nxt, anchor, streams):
        return nxt - share * (nxt - following) + bias, None

    examined = _HeldOutPairs(SimpleNamespace(level_rule=EstimatedLevels(), refine=refine), None, previous, following)
    restored = _restored_shares(examined, seed=0)["restored"][1]
    assert restored == pytest.approx([share] * len(DRIFTS), abs=1e-5)


def test_the_exact_score_of_white_noise_finds_drifts_with_their_sign():
    """White frames of unit variance: at every level the score is minus the noised frame."""
    stream, schedule = torch.Generator().manual_seed(4), NoiseSchedule.cosine(100)
    previous, following = (torch.randn(200, 1, 16, 16, generator=stream) for _ in range(2))

    def denoiser(prev, nxt, s_prev, s_next, anchor):
        return schedule.sigma(s_prev)[0].float() * prev, schedule.sigma(s_next)[0].float() * nxt

    method = SimpleNamespace(schedule=schedule, whiten=lambda x: x, denoiser=denoiser)
    signed = _amplitudes_of_drifts(_HeldOutPairs(method, None, previous, following), stream)
    weak, strong = np.array(signed["amplitude_detected"][1]).T
    assert min(weak[DRIFTS.index(0.8)], strong[DRIFTS.index(1.2)]) > 0.85
    assert max(weak[2:].max(), strong[:2].max()) < 0.05
    rise = np.array(signed["amplitude_of_drift"][1])[:, 0]  # shell 1, in which all modes are scaled
    assert (np.diff(rise) > 0).all() and signed["amplitude_mean"][1] == pytest.approx([0, 0, 0], abs=3.0)


@pytest.mark.parametrize("axis", [-1, -2])
def test_the_error_of_one_step_obeys_parseval_whichever_way_it_runs(axis):
    truth = torch.zeros(3, 1, 8, 8)
    wave = torch.cos(2 * torch.pi * torch.arange(8) / 8).view(*[-1 if a == axis else 1 for a in (-2, -1)])
    method = SimpleNamespace(
        level_rule=EstimatedLevels(),
        surrogate=lambda previous: truth + 0.3 * wave,
        refine=lambda previous, candidate, anchor, streams: (truth + 0.1 * wave, None),
        frames=FrameSpace(),
    )
    error = _one_step_errors(_HeldOutPairs(method, None, truth, truth), seed=0)["one_step_error"][1]
    modes = np.bincount(shell_index(8).ravel(), mode_weight(8).ravel())
    assert (error**2 @ modes / 64).tolist() == pytest.approx([0.3**2 / 2, 0.1**2 / 2])
    assert np.flatnonzero(error[0] > 1e-6).tolist() == [1]


def test_a_part_that_no_frame_has_counts_in_no_measure_of_a_method_that_removes_it():
    """The surrogate's frames have a mean, which a system without one loses before a calibrated refinement sees it."""
    oracle, measured = field_process(8, NoiseSchedule.cosine(12)), []
    space = FrameSpace(admissible=lambda x: x - x.mean((-2, -1), keepdim=True))
    previous, following = map(space.admissible, oracle.sample(24, torch.Generator().manual_seed(2), (1, 8, 8)))
    for shift in (0.0, 0.5):
        method = CalibratedRefinement(lambda x, shift=shift: 0.9 * x + shift, oracle, oracle.schedule, frames=space)
        method.calibrate(torch.full((1, 7), 0.1, dtype=torch.float64), torch.ones(1, 7, dtype=torch.float64))
        pairs = _HeldOutPairs(method, None, previous, following)
        levels = _estimated_levels(pairs, torch.tensor([3]), torch.Generator().manual_seed(3))["level_of_surrogate"]
        detected, errors = _detected_drifts(pairs)["surrogate_detected"], _one_step_errors(pairs, seed=0)
        measured.append([np.array(part[1]) for part in (levels, detected, errors["one_step_error"])])
    for left, right in zip(*measured, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-9)
    published = Refinement(
        lambda x: 0.9 * x + 0.5, oracle, oracle.schedule, frames=space, levels=EstimatedLevels(condition_level=0)
    )
    error = _one_step_errors(_HeldOutPairs(published, None, previous, following), seed=0)["one_step_error"][1]
    assert (error[:, 0] < 1e-9).all(), "the heads see this mean, and no rollout has it"


def examined(error=0.5, false_alarms=0.25, restored=0.1):
    """Diagnostics of a denoiser whose refined step has `error` times the surrogate's error in every shell."""
    shells, pairs, level = 7, 8, np.array([0, 5, 10])  # of 8 x 8 frames
    refined = np.zeros((pairs, 2))
    refined[: int(false_alarms * pairs), 1] = 3
    return xr.Dataset(
        {
            "one_step_error": (("when", "shell"), np.stack([np.ones(shells), np.full(shells, error)])),
            "estimated_level": (("level", "pair", "frame"), np.tile(level[:, None, None] + 1, (1, pairs, 2))),
            "level_of_true_pair": (("pair", "frame"), refined),
            "level_of_surrogate": (("pair", "frame"), np.ones((pairs, 2))),
            "restored": (("drift",), np.full(len(DRIFTS), restored)),
            "amplitude_detected": (("drift", "sign"), [[0.9, 0.0]] + [[0.0, 0.7]] * (len(DRIFTS) - 1)),
            "example_truth": (("layer", "y", "x"), np.zeros((1, 8, 8))),
        },
        coords={"level": level, "drift": list(DRIFTS), "when": ["surrogate", "refined"], "sign": ["weak", "strong"]},
        attrs={"levels": 20},
    )


def test_measures_of_a_denoiser():
    measures = held_out_measures(examined())
    expected = {"one_step": 0.5, "one_step_large": 0.5, "calibration": 1 / 20, "false_alarms": 0.25,
                "surrogate_found": 1.0, "signed_strong": 0.7, "signed_weak": 0.9,
                "restored_strong": 0.1, "restored_weak": 0.1}  # fmt: skip
    assert measures == pytest.approx(expected) and list(measures) == list(MEASURES)
    control = held_out_measures(examined().drop_vars(["one_step_error", "restored"]))
    assert np.isnan(control["one_step"]) and np.isnan(control["restored_weak"]) and control["false_alarms"] == 0.25


def test_the_better_setting_is_told_by_what_ranks_with_the_rollouts(tmp_path):
    errors, files = {"a": 0.02, "b": 0.05, "c": 0.3, "d": np.nan}, {}
    for rank, name in enumerate(errors):
        files[name] = tmp_path / f"{name}.nc"
        examined(error=0.1 + rank, false_alarms=0.25, restored=0.1 * rank).to_netcdf(files[name])
    rows = [
        {"method": name, "member": member, "layer": "flow", "lost_step": 40 if name == "d" else -1,
         "member_spectrum_error": error, "member_spectrum_error_late": 9.0, "kinetic_energy": 2.0,
         "kinetic_energy_solver": 4.0, "calls_per_step": 1.0}
        for name, error in errors.items() for member in (0, 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)
    table, ranks = tmp_path / "held_out.csv", tmp_path / "agreement.csv"
    compare_held_out(diagnostics=files, metrics=tmp_path / "metrics.csv", output=table, output_agreement=ranks)
    written = pd.read_csv(table).set_index("method")
    assert written["rollout_error"].to_dict() == pytest.approx({"a": 0.02, "b": 0.05, "c": 0.3, "d": WORST})
    assert written["members_lost"].tolist() == [0, 0, 0, 2] and (written["kinetic_energy"] == 0.5).all()
    agreements = pd.read_csv(ranks).set_index("measure")["agreement"]
    assert agreements["one_step"] == pytest.approx(1), "less error should be better, and is"
    assert agreements["restored_strong"] == pytest.approx(-1), "more should be better, and is worse"
    assert np.isnan(agreements["false_alarms"]), "all alike"
    plot_held_out(
        table=table, agreement=ranks, labels={n: n for n in ("solver", *errors)}, dpi=50, output=tmp_path / "f.png"
    )
    assert (tmp_path / "f.png").stat().st_size > 5000 and (tmp_path / "f.pdf").exists()


def test_ranks_of_a_table_by_hand():
    table = pd.DataFrame({name: [1.0, 2.0, 3.0] for name in MEASURES} | {"rollout_error": [0.1, 0.3, 0.2]})
    agreements = agreement(table).set_index("measure")["agreement"]
    assert agreements["one_step"] == pytest.approx(0.5) and agreements["restored_weak"] == pytest.approx(-0.5)
