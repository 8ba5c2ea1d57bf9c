"""The stage that measures what a calibrated refinement follows: its file, its repeatability, and files that are refused."""

import numpy as np
import pytest
import torch
from tiny_models import CALIBRATED

from sns_core.data import load_dataset
from sns_core.data.emulation import Emulation
from sns_core.errors import DamagedFile, UserError
from sns_core.evaluation import calibration
from sns_core.evaluation.calibration import (
    LENGTHS,
    MEMBERS,
    WINDOW,
    calibrate_refinement,
    error_correlation,
    find_balance,
)
from sns_core.files import read_json, sha256, write_json
from sns_core.methods import Hardware, build_method
from sns_core.methods.calibrated import least_level
from sns_core.shells import shell_index
from sns_core.streams import MemberStreams

SHELLS = int(shell_index(16).max()) + 1
LOOP = {"members": MEMBERS * 2, "steps": LENGTHS * 20}  # the tiny validation split has 2 members of 20 frames


@pytest.fixture
def roles(tiny) -> dict:
    return {"surrogate": tiny.models["surrogate"], "denoiser": tiny.models["residual"]}


@pytest.fixture
def calibrate(tiny, roles, tmp_path):
    """Function that runs the stage, with some options of the method or arguments changed, and returns its file."""

    def run(seed=3, **options):
        output = tmp_path / f"calibration_{len(list(tmp_path.glob('*.json')))}.json"
        arguments = {**CALIBRATED, "seed": seed, "method": {**CALIBRATED["method"], **options}}
        calibrate_refinement(models=roles, manifest=tiny.manifest, output=output, **arguments)
        return output

    return run


@pytest.fixture
def build(tiny, roles):
    """Function that builds the method by a calibration file, or without one (None)."""

    def run(calibration, **options):
        method, emulation = {**CALIBRATED["method"], **options}, Emulation.read(tiny.manifest)
        models = {**roles, "calibration": calibration}
        return build_method(method, models, emulation, hardware=Hardware(precision="float32"))

    return run


class Persistence:
    """A method whose candidate is the previous frame, in plain coordinates, so that its errors are the changes of the frames."""

    @staticmethod
    def propose(frames):
        return frames

    whiten = propose


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 0.6, 1.0])
def test_successive_errors_have_the_correlation_that_they_were_made_with(correlation):
    first, error, noise = torch.randn(
        3, 400, 2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    next_error = 3 * (correlation * error + (1 - correlation**2) ** 0.5 * noise)  # another strength changes nothing
    measured = error_correlation(Persistence, first, first + error, first + error + next_error)
    assert measured.shape == (2, SHELLS)
    torch.testing.assert_close(measured[:, 1:], torch.full_like(measured[:, 1:], correlation), atol=0.05, rtol=0)


def test_a_surrogate_without_errors_has_no_correlation_of_them():
    frames = torch.ones(4, 1, 16, 16, dtype=torch.float64)
    assert not error_correlation(Persistence, frames, frames, frames).any()


def test_a_student_has_its_teachers_measurements_and_a_balance_of_its_own(tiny, tmp_path):
    models = {"denoiser": tiny.models["distilled_refinement"]}
    arguments = {**CALIBRATED, "name": "student", "method": {"kind": "distilled_refinement"}}
    calibrate_refinement(models=models, manifest=tiny.manifest, output=tmp_path / "student.json", **arguments)
    student, teacher = (read_json(path) for path in (tmp_path / "student.json", tiny.models["calibration"]))
    for same in ("residual", "power", "level"):
        assert student[same] == teacher[same]
    assert (
        student["balance"] != teacher["balance"] and np.array(student["balance"]).any() and "departure" not in student
    )
    method = build_method(
        {"kind": "distilled_refinement"},
        {**models, "calibration": tmp_path / "student.json"},
        Emulation.read(tiny.manifest),
    )
    assert method.calibration.balance.tolist() == student["balance"]


def test_the_file_holds_spectra_the_loop_and_what_they_were_measured_with(tiny, roles, build):
    content = read_json(tiny.models["calibration"])
    assert content["method"] == "calibrated" and content["data"] == Emulation.read(tiny.manifest).identity
    assert content["models"] == {role: sha256(path) for role, path in roles.items()}
    residual, power, balance = (np.array(content[name]) for name in ("residual", "power", "balance"))
    assert residual.shape == power.shape == balance.shape == (1, SHELLS)
    assert (residual[0, 1:] > 0).all() and (power[0, 1:] > 0).all() and balance.any()
    loop, windows = content["loop"], LOOP["steps"] // WINDOW
    assert {name: loop[name] for name in LOOP} == LOOP
    assert np.array(loop["power"]).shape == (windows, 1, SHELLS) and np.isfinite(loop["power"]).all()
    assert len(content["condition_levels"]) == windows and min(content["condition_levels"]) >= 0
    method = build(tiny.models["calibration"])
    assert method.calibration.level == least_level(method.schedule, torch.from_numpy(residual))
    least, most = (bound.numpy() for bound in method.calibration.bounds)
    assert (least - 1e-12 <= balance).all() and (balance <= most + 1e-12).all()
    measured = ("level", "residual", "power", "balance", "departure")
    assert method.calibration.to_dict() == {name: content[name] for name in measured}


def test_equal_seeds_give_equal_files_and_another_seed_another_loop(tiny, calibrate):
    assert calibrate().read_bytes() == tiny.models["calibration"].read_bytes()
    content, reseeded = read_json(tiny.models["calibration"]), read_json(calibrate(seed=4))
    assert reseeded["residual"] == content["residual"] and reseeded["level"] == content["level"]
    assert reseeded["balance"] != content["balance"]


def test_an_option_leaves_out_its_part(tiny, calibrate):
    whole = read_json(tiny.models["calibration"])
    unbalanced, incomplete, higher = (
        read_json(calibrate(**options)) for options in ({"balance": False}, {"completion": False}, {"level": 7})
    )
    assert not np.any(unbalanced["balance"]) and unbalanced["residual"] == whole["residual"]
    assert incomplete["residual"] == whole["residual"] and incomplete["level"] == whole["level"] != 7
    assert incomplete["balance"] != whole["balance"]
    assert higher["level"] == 7 and higher["residual"] == whole["residual"]


def test_a_resampled_anchor_is_what_the_denoiser_sees_in_the_calibration(tiny, calibrate, build):
    whole, resampled = (read_json(path) for path in (tiny.models["calibration"], calibrate(anchor_frame="resampled")))
    assert resampled["residual"] == whole["residual"] and resampled["departure"] != whole["departure"]
    with pytest.raises(UserError, match="anchor_frame: resampled draws from training frames, and there are none"):
        build(tiny.models["calibration"], anchor_frame="resampled")


def test_validation_trajectories_too_short_for_the_loop_are_refused(calibrate, monkeypatch):
    monkeypatch.setattr(calibration, "load_dataset", lambda *names: load_dataset(*names).first(frames=2))
    with pytest.raises(UserError, match=r"data.splits.validation.frames: 2 are too few .* at least 3"):
        calibrate()


def test_a_matched_departure_is_measured_written_and_read(calibrate, build, tiny):
    path = tiny.models["calibration"]
    factor = torch.tensor(read_json(path)["departure"], dtype=torch.float64)
    assert factor.shape == (1, SHELLS) and ((factor > 0) & (factor <= 1)).all() and (factor < 1).any()
    assert torch.equal(build(path).calibration.departure, factor)
    path = calibrate(match_departure=False)
    assert "departure" not in read_json(path)
    assert build(path, match_departure=False).calibration.departure is None


def test_a_lost_member_starts_again_and_the_others_go_on(build, tiny):
    method = build(tiny.models["calibration"])
    starts = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    surrogate, inputs = method.surrogate, []

    def failing(frames):
        inputs.append(frames)
        frames = surrogate(frames)
        if len(inputs) == 2:
            frames[1] = torch.nan
        return frames

    method.surrogate = failing
    method.frames = type(method.frames)()  # the loop starts from frames
    gain = torch.full((1, SHELLS), 0.01, dtype=torch.float64)
    calibration, history, _ = find_balance(method, starts, MemberStreams("lost", members=range(3)), gain, 4, window=2)
    assert torch.equal(inputs[2][1], starts[1]) and not torch.equal(inputs[3][1], starts[1])
    assert not any(torch.equal(inputs[2][member], starts[member]) for member in (0, 2))
    assert all(torch.isfinite(window).all() for window in (*history, calibration.balance))


def damage(content: dict, how: str) -> dict:
    changes = {
        "other data": {"data": "0" * 64}, "another format": {"format": "sns-record-1"}, "no data": {"data": None},
        "a text for a spectrum": {"residual": "none"}, "a ragged spectrum": {"power": [[1.0], [1.0, 2.0]]},
    }  # fmt: skip
    if how == "no balance":
        return {name: value for name, value in content.items() if name != "balance"}
    return {**content, **changes[how]}


REFUSED = {
    "other data": "measured on other data than this run's",
    "no data": "measured on other data than this run's",
    "another format": "not a calibration of this project",
    "no balance": "no whole calibration .*balance",
    "a text for a spectrum": "no whole calibration",
    "a ragged spectrum": "no whole calibration",
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_file_that_is_no_calibration_of_this_data_is_refused_in_one_line(tiny, build, tmp_path, how):
    path = tmp_path / "calibration.json"
    write_json(path, damage(read_json(tiny.models["calibration"]), how))
    with pytest.raises(UserError, match=REFUSED[how]) as caught:
        build(path)
    assert isinstance(caught.value, DamagedFile) == (not REFUSED[how].startswith("measured")), "such a file is whole"
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_method_without_its_calibration_is_refused_and_one_that_is_to_be_calibrated_is_built(tiny, roles, build):
    with pytest.raises(UserError, match="'calibrated_refinement' needs its calibration"):
        build_method(CALIBRATED["method"], roles, Emulation.read(tiny.manifest))
    assert build(None).calibrated
