"""The measurements that `CalibratedRefinement` follows, all of them on validation data.

The residual R(K) is the power spectrum of the surrogate's error over one step from true frames. The correlation of these
errors from step to step says whether they add up; the method does not use it. The departure's factor
keeps the clean estimate within R of the candidate on true pairs. The balance is found in the loop: an ensemble rolls on
from validation states, and the power that each shell gets back, as noise up to R and by a factor beyond, is corrected
until the shell keeps the power of the data. A measurement on true pairs cannot replace the loop, because in a rollout
the surrogate and the denoiser see their own output.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sns_core.data.emulation import Emulation
from sns_core.data.pairs import Dataset, load_dataset, true_frames
from sns_core.device import select_device, use_threads
from sns_core.diffusion.schedule import per_member
from sns_core.errors import UserError
from sns_core.files import FileTree, sha256, write_json
from sns_core.methods.balanced import BalancedMethod
from sns_core.methods.base import Carry, FrameSpace, Hardware
from sns_core.methods.build import build_method
from sns_core.methods.calibrated import CalibratedRefinement
from sns_core.methods.calibration import CALIBRATION, CALIBRATION_FORMAT, Calibration
from sns_core.metrics.lost import LOST_BEYOND
from sns_core.progress import progress
from sns_core.shells import shell_power
from sns_core.streams import MemberStreams

STRETCHES = 512  # at most, of true frames on which the surrogate's error is measured
BATCH = 64  # frames in one call of the surrogate
MEMBERS, LENGTHS = 8, 4  # the loop has this many times the members, and the steps, of the validation split
SETTLING = 0.25  # share of the loop that the mean balance leaves out
WINDOW = 10  # steps between two corrections of the balance
LARGEST_GAIN = 0.2  # of a correction, as a share of the missing power


def calibrate_refinement(
    *, name: str, method: dict, models: FileTree, manifest: Path, seed: int, output: Path,
    device: str = "auto", precision: str = "auto", threads: int = 1,
) -> None:  # fmt: skip
    """Measure what a calibrated refinement follows, and write it as JSON.

    `name`: the method's name in the configuration; its random numbers are addressed by it.
    `method`: the method's kind and options.
    `models`: role -> model file.
    `manifest`: the data manifest.
    `seed`: the run's seed.
    `output`: the JSON file, with spectra (channel, shell) in the coordinates of the diffusion.

    Raises UserError where the validation trajectories are too short for a loop.
    """
    use_threads(threads)
    hardware = Hardware(select_device(device), precision)
    dataset = load_dataset(manifest, "validation")
    if LENGTHS * dataset.frames < WINDOW:
        raise UserError(
            f"data.splits.validation.frames: {dataset.frames} are too few for a calibration; at least {-(-WINDOW // LENGTHS)}"
        )
    emulation = Emulation.from_manifest(dataset.manifest)
    refinement = build_method(
        method,
        {**models, CALIBRATION: None},
        emulation,
        hardware=hardware,
        training_frames=lambda: true_frames(manifest, seed),
    )
    refinement.frames = FrameSpace(admissible=refinement.frames.admissible)  # the loop starts from frames
    previous, true_next = (frames.to(hardware.device) for frames in _stretches(dataset, 2))
    correlation = None
    if not refinement.measured:  # a student has the measurements of its teacher
        correlation = error_correlation(refinement, *(frames.to(hardware.device) for frames in _stretches(dataset, 3)))
        residual = residual_spectrum(refinement, previous, true_next)
        refinement.calibrate(residual, data_power(refinement, emulation))
        if refinement.matches_departure:
            pairs = MemberStreams(seed, "departure", name, members=range(len(previous)), device=hardware.device)
            departure = departure_factor(refinement, previous, residual, pairs)
            refinement.calibration = replace(refinement.calibration, departure=departure)
    starts = previous[torch.linspace(0, len(previous) - 1, min(MEMBERS * dataset.members, len(previous))).long()]
    streams = MemberStreams(seed, "closed loop", name, members=range(len(starts)), device=hardware.device)
    calibration, history, levels, steps = refinement.calibration, [], [], 0
    if refinement.balances:
        steps, gain = LENGTHS * dataset.frames, loop_gain(refinement, previous, true_next)
        calibration, history, levels = find_balance(refinement, starts, streams, gain, steps)
    content = {
        "format": CALIBRATION_FORMAT,
        "method": name,
        "data": emulation.identity,
        "models": {role: sha256(path) for role, path in models.items()},
        **calibration.to_dict(),
        "error_correlation": None if correlation is None else correlation.tolist(),
        "condition_levels": levels,
        "loop": {"members": len(starts), "steps": steps, "power": [window.tolist() for window in history]},
    }
    write_json(output, content)


def _stretches(dataset: Dataset, length: int) -> tuple[torch.Tensor, ...]:
    """Successive true frames, `length` times (B, C, m, m), spread evenly over all members and times."""
    starts = dataset.frames - length + 1
    count = min(STRETCHES, dataset.members * starts)
    member, time = np.divmod(np.linspace(0, dataset.members * starts - 1, count).astype(int), starts)
    return tuple(dataset.gather(member, time + step) for step in range(length))


def data_power(method: CalibratedRefinement, emulation: Emulation) -> torch.Tensor:
    """Power (C, K) of the training data in the coordinates of the diffusion."""
    power = torch.tensor(emulation.statistics["shell_amplitude"], dtype=torch.float64).square()
    return power if method.coordinates is None else power * method.coordinates.shell_factor.square()


def residual_spectrum(method: CalibratedRefinement, previous: torch.Tensor, true_next: torch.Tensor) -> torch.Tensor:
    """Power (C, K) of the surrogate's error over one step, in the coordinates of the diffusion.

    `previous`, `true_next`: true frames (B, C, m, m) one step apart.
    """
    return mean_power(_one_step_error(method, previous, true_next))


def error_correlation(
    method: CalibratedRefinement, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor
) -> torch.Tensor:
    """Correlation (C, K) in each shell of the surrogate's errors over two successive steps, 0 where it errs in none.

    `first`, `second`, `third`: successive true frames (B, C, m, m). Errors that are nearly the same from step to step
    add up in a rollout, and a method that restores one step's error at a time does not hold them.
    """
    errors = _one_step_error(method, first, second), _one_step_error(method, second, third)
    powers = torch.stack([mean_power(error) for error in errors])
    strength = powers.prod(0).sqrt()
    return torch.where(strength > 0, (mean_power(sum(errors)) - powers.sum(0)) / (2 * strength), 0.0)


def _one_step_error(method: CalibratedRefinement, previous: torch.Tensor, true_next: torch.Tensor) -> torch.Tensor:
    """The surrogate's error (B, C, m, m) over one step from true frames, in the coordinates of the diffusion."""
    batches = zip(previous.split(BATCH), true_next.split(BATCH), strict=True)
    return torch.cat([method.whiten(method.propose(x)) - method.whiten(y) for x, y in batches])


def departure_factor(
    method: CalibratedRefinement, previous: torch.Tensor, residual: torch.Tensor, streams: MemberStreams
) -> torch.Tensor:
    """Factor (C, K), at most 1, after which the clean estimate departs from the candidate by no more than `residual` (C, K).

    `previous`: true frames (B, C, m, m). The exact estimate departs by less than R. A trained network departs by more in
    shells where the noise of level s1 is much stronger than R: there it replaces the candidate by a guess of its own.
    """
    generators, departures = streams.at(1), []
    with torch.no_grad():
        for first in range(0, len(previous), BATCH):
            frames, part = previous[first : first + BATCH], generators[first : first + BATCH]
            candidate = method.propose(frames)
            refined, _ = method.refine(frames, candidate, method.anchors.of_step(method.start(frames), part), part)
            departures.append(method.whiten(refined) - method.whiten(candidate))
    departure = mean_power(torch.cat(departures))
    return torch.where(departure > 0, (residual / departure).sqrt(), 1.0).clamp(max=1)


def mean_power(z: torch.Tensor) -> torch.Tensor:
    """Mean power of the modes in each shell, (C, K) float64, of fields (B, C, H, W)."""
    return torch.from_numpy(shell_power(z[:, None].cpu().numpy())) / len(z)


def loop_gain(method: BalancedMethod, previous: torch.Tensor, true_next: torch.Tensor, window: int = WINDOW):
    """Gain (C, K) of each shell in the loop, from true frames (B, C, m, m) one step apart.

    A shell that exchanges the power D per step has the time scale tau = sqrt(P / D) of its autocorrelation's curvature
    at lag 0. An integral control of a quantity that relaxes within 2 tau is critically damped at the gain 1 / (4 (2 tau)^2)
    per step.
    """
    power = method.calibration.power
    exchanged = mean_power(method.whiten(true_next) - method.whiten(previous))
    return torch.where(power > 0, window * exchanged / (16 * power), 0.0).clamp(max=LARGEST_GAIN)


def find_balance(
    method: BalancedMethod,
    starts: torch.Tensor,
    streams: MemberStreams,
    gain: torch.Tensor,
    steps: int,
    window: int = WINDOW,
) -> tuple[Calibration, list[torch.Tensor], list[float]]:
    """Return the calibration whose balance keeps the power of every shell, and of each window the power (C, K) and the
    mean level of the previous frame.

    The method rolls on from `starts` (B, C, m, m). After each window of steps the balance moves by `gain` (C, K) times the
    power that a shell lacks, within the calibration's bounds. The result is the mean balance after the first quarter, in
    which its fluctuations cancel. A member that is lost starts again, so that an untrained denoiser gets a calibration, too.
    """
    carry, power = method.start(starts), method.calibration.power
    balances, history, levels, level = [], [], [], 0.0
    total = torch.zeros_like(power)
    for step in progress(steps, "calibration"):
        with torch.no_grad():
            carry, record = method.step(carry, streams.at(step + 1))
        carry = _restarted(method, carry, starts)
        level += float(record.levels[:, 0].double().mean())
        total += mean_power(method.whiten(carry["frame"]))
        if (step + 1) % window == 0:
            balance = method.calibration.balance + gain * (power - total / window)
            method.calibration = replace(method.calibration, balance=balance.clamp(*method.calibration.bounds))
            balances.append(method.calibration.balance)
            history.append(total / window)
            levels.append(level / window)
            total, level = torch.zeros_like(power), 0.0
    late = torch.stack(balances[int(SETTLING * len(balances)) :]).mean(0)
    return replace(method.calibration, balance=late), history, levels


def _restarted(method: BalancedMethod, carry: Carry, starts: torch.Tensor) -> Carry:
    """The carry, in which members that are lost stand at their starts."""
    lost = ~(carry["frame"].abs().flatten(1).amax(1) <= LOST_BEYOND)
    if not lost.any():
        return carry
    return {
        key: torch.where(per_member(lost, value) > 0, method.start(starts)[key], value) for key, value in carry.items()
    }
