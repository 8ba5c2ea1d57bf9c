"""Examine a denoiser: its error across the plane, the calibration of its heads, and its response to a drift.

Four questions, answered on the held-out test split and, the last one, on a stored rollout of the surrogate alone:
how the denoising error of x_t depends on the level s2 of the conditioning frame (paper, figure 3); which level the
heads give to truly noised frames and to the surrogate's one-step output; how much of a drift of the large scales one
refinement takes back; and how long before its energy the score tells that a rollout fails.

The score speaks through `amplitude_scores`: the signed amplitude of some shells, from one call of the denoiser.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import write_described
from sns_core.data.emulation import Emulation
from sns_core.data.pairs import PairSampler, load_dataset, true_frames
from sns_core.data.segments import open_segments
from sns_core.device import select_device, use_threads
from sns_core.diffusion import amplitude_scores, octaves
from sns_core.files import FileTree
from sns_core.methods.base import Hardware
from sns_core.methods.build import build_method
from sns_core.methods.levels import EstimatedLevels
from sns_core.methods.refinement import Refinement
from sns_core.metrics.held_out import LARGE
from sns_core.shells import filtered, shell_index, shell_power
from sns_core.streams import generator

EXAMPLES = 5  # number of conditioning levels whose fields are kept for the figure
DRIFTS = (0.8, 0.9, 1.1, 1.2, 1.4)  # factors that multiply the large scales of held-out pairs
FALSE_ALARMS = 0.03  # share of true pairs that a test calls drifted, on either side
SCORE_LEVEL = 0.15  # share of S: the level to which both frames are noised where the score is asked for an amplitude
ALARM_FRAMES = 10  # an alarm averages over this many stored frames


def diagnose_denoiser(
    *, name: str, method: dict, models: FileTree, manifest: Path, segments: list[Path], seed: int, pairs: int, levels: int,
    output: Path, device: str = "auto", precision: str = "auto", threads: int = 1,
) -> None:  # fmt: skip
    """Examine the denoiser of a refinement method, and write the results as netCDF.

    `method`: the refinement method's kind and options.
    `segments`: files of the rollout of the surrogate alone.
    `pairs`: number of held-out pairs to average over.
    `levels`: number of noise levels between 0 and S at which errors and calibration are measured.
    """
    use_threads(threads)
    hardware = Hardware(select_device(device), precision)
    dataset = load_dataset(manifest, "test")
    emulation = Emulation.from_manifest(dataset.manifest)
    system = emulation.build_system(hardware.device)
    refinement = build_method(
        method,
        models,
        emulation,
        system=system,
        hardware=hardware,
        training_frames=lambda: true_frames(manifest, seed),
    )
    stream = generator(seed, "diagnose")  # the same pairs for every denoiser
    sampler = PairSampler(dataset, 2, anchor_gap=emulation.splits["test"][0]["shape"][1] // 4)
    anchor, previous, true_next = sampler.draw(pairs, stream).to(hardware.device).unbind(1)
    examined_levels = torch.unique(torch.linspace(0, refinement.schedule.levels, levels).round().long())
    z_anchor = _anchors(refinement, anchor, [stream] * len(anchor))
    examined = _HeldOutPairs(refinement, z_anchor, previous, true_next)
    result = {
        **_condition_error(examined, examined_levels, stream),
        **_estimated_levels(examined, examined_levels, stream),
        **_detected_drifts(examined),
        **_amplitudes_of_drifts(examined, stream),
        **_one_step_errors(examined, seed),
        **_restored_shares(examined, seed),
        **_levels_along_rollout(examined, segments, dataset, system, emulation),
    }
    result = xr.Dataset(
        result,
        coords={
            "level": examined_levels.numpy(),
            "drift": list(DRIFTS),
            "side": ["cleaner", "noisier"],
            "sign": ["weak", "strong"],
            "octave": [first for first, _ in octaves(emulation.resolution)],
            "when": ["surrogate", "refined"],
        },
        attrs={"method": name, "levels": refinement.schedule.levels},
    )
    title = f"{type(system).__name__}: diagnosis of the denoiser of {name}"
    write_described(result, system, output, title=title, stage="diagnose_denoiser")


def _anchors(method: Refinement, first: torch.Tensor, streams) -> torch.Tensor:
    """Return the anchors (B, C, m, m) of one step of a rollout that began with the frames `first` (B, C, m, m).

    They are in the coordinates of the diffusion.
    """
    return method.anchors.of_step(method.anchors.start(method.whiten(first)), streams)


@dataclass(frozen=True)
class _HeldOutPairs:
    """A refinement method and the held-out pairs of frames on which it is examined.

    `previous`, `true_next`: true frames (B, C, m, m) one step apart; `z_anchor` (B, C, m, m): their anchors, in the
    coordinates of the diffusion.
    """

    method: Refinement
    z_anchor: torch.Tensor
    previous: torch.Tensor
    true_next: torch.Tensor

    def noised(self, z: torch.Tensor, level, stream) -> torch.Tensor:
        """Frames in the coordinates of the diffusion, noised to one level."""
        noise = torch.randn(z.shape, generator=stream).to(z)
        return self.method.schedule.add_noise(z, torch.as_tensor(level).expand(len(z)), noise)

    def estimated_levels(self, z_prev, z_next, z_anchor, streams) -> np.ndarray:
        """Levels (B, 2) that the heads give, read as the method reads them (by argmax where it estimates none)."""
        rule = self.method.level_rule if self.estimates else EstimatedLevels()
        denoiser = self.method.denoiser
        return rule.of_pair(
            lambda: denoiser.logits(denoiser.encode_pair(z_prev, z_next, z_anchor)), streams, None
        ).numpy()

    def candidate(self, frames: torch.Tensor) -> torch.Tensor:
        """Return what the method refines after frames (B, C, m, m): the surrogate's step, as a step of the method sees it."""
        return getattr(self.method, "propose", self.method.surrogate)(frames)

    @property
    def estimates(self) -> bool:
        """Whether the method refines by estimated levels; a blind control cannot be asked about one pair."""
        return isinstance(self.method.level_rule, EstimatedLevels)


def _condition_error(examined: _HeldOutPairs, levels, stream) -> dict:
    """Root-mean-square error of the clean estimate of x_t, noised to 0.9 S, against the level of x_{t-1}."""
    method, true_next = examined.method, examined.true_next
    z_prev, z_next = method.whiten(examined.previous), method.whiten(true_next)
    s_next = round(0.9 * method.schedule.levels)
    noised_next = examined.noised(z_next, s_next, stream)
    shown = set(levels[torch.linspace(0, len(levels) - 1, EXAMPLES).round().long()].tolist())
    errors, conditions, estimates = [], [], []
    signal, sigma = (float(table(torch.tensor(s_next))) for table in (method.schedule.signal, method.schedule.sigma))
    for level in levels.tolist():
        noised_prev = examined.noised(z_prev, level, stream)
        pair_levels = [torch.full((len(z_prev),), s) for s in (level, s_next)]
        _, noise = method.denoiser(noised_prev, noised_next, *pair_levels, examined.z_anchor)
        estimate = method.unwhiten((noised_next - sigma * noise) / signal)
        errors.append((estimate - true_next).square().mean((1, 2, 3)).sqrt().cpu().numpy())
        if level in shown:
            conditions.append(method.unwhiten(noised_prev)[0].cpu().numpy())
            estimates.append(estimate[0].cpu().numpy())
    return {
        "condition_error": (("level", "pair"), np.stack(errors)),
        "example_level": (("example",), np.array(sorted(shown))),
        "example_condition": (("example", "layer", "y", "x"), np.stack(conditions)),
        "example_estimate": (("example", "layer", "y", "x"), np.stack(estimates)),
        "example_truth": (("layer", "y", "x"), true_next[0].cpu().numpy()),
    }


def _estimated_levels(examined: _HeldOutPairs, levels, stream) -> dict:
    """Read-out for truly noised pairs (both frames at the same level) and for the surrogate's one-step output."""
    method = examined.method
    z_prev, z_next = method.whiten(examined.previous), method.whiten(examined.true_next)
    streams = [stream] * len(z_prev)

    def read(prev, nxt):
        return examined.estimated_levels(prev, nxt, examined.z_anchor, streams)

    estimated = [read(examined.noised(z_prev, s, stream), examined.noised(z_next, s, stream)) for s in levels.tolist()]
    candidate = method.whiten(examined.candidate(examined.previous))
    return {
        "estimated_level": (("level", "pair", "frame"), np.stack(estimated)),
        "level_of_true_pair": (("pair", "frame"), read(z_prev, z_next)),
        "level_of_surrogate": (("pair", "frame"), read(z_prev, candidate)),
    }


def _detected_drifts(examined: _HeldOutPairs) -> dict:
    """Share of drifted pairs that the heads find cleaner, and noisier, than all but FALSE_ALARMS of true pairs.

    Drifted pairs are held-out pairs whose shells 1 to LARGE are multiplied by each of DRIFTS, and pairs of a true frame
    and the surrogate's step. No rollout is needed. The level is a ratio of noise to signal, so a field with too much
    energy looks cleaner than a true one.
    """
    method, previous, true_next = examined.method, examined.previous, examined.true_next
    large = _large_scales(previous)

    def noisiness(prev, nxt):
        pair = method.denoiser.encode_pair(method.whiten(prev), method.whiten(nxt), examined.z_anchor)
        level = torch.arange(method.schedule.levels + 1, device=prev.device)
        return (method.denoiser.logits(pair).softmax(-1) * level).sum(-1).sum(-1)

    usual = noisiness(previous, true_next)
    scaled = [
        _shares_beyond(noisiness(*(filtered(x, 1 + (factor - 1) * large) for x in (previous, true_next))), usual)
        for factor in DRIFTS
    ]
    return {
        "drift_detected": (("drift", "side"), scaled),
        "surrogate_detected": (("side",), _shares_beyond(noisiness(previous, examined.candidate(previous)), usual)),
    }


def _shares_beyond(values: torch.Tensor, usual: torch.Tensor) -> list[float]:
    """Return the share of values below, and above, all but FALSE_ALARMS of the usual ones."""
    low, high = torch.quantile(usual, FALSE_ALARMS), torch.quantile(usual, 1 - FALSE_ALARMS)
    return [float((values < low).float().mean()), float((values > high).float().mean())]


def _amplitudes(method: Refinement, pair, z_anchor, stream) -> torch.Tensor:
    """Return T_b (B, octaves + 1) of pairs in the coordinates of the diffusion.

    The last one is that of the large scales.
    """
    level = torch.full((len(pair[0]),), max(1, round(SCORE_LEVEL * method.schedule.levels)))
    noise = [torch.randn(z.shape, generator=stream).to(z) for z in pair]
    noised = tuple(method.schedule.add_noise(z, level, eps) for z, eps in zip(pair, noise, strict=True))
    predicted = method.denoiser(*noised, level, level, z_anchor)
    parts = [*octaves(noised[0].shape[-2:]), (1, LARGE)]
    return amplitude_scores(noised, predicted, (level, level), method.schedule, parts)


def _amplitudes_of_drifts(examined: _HeldOutPairs, stream) -> dict:
    """Return the amplitudes that the score gives to true pairs and to the drifted pairs of `_detected_drifts`.

    `amplitude_mean`, `amplitude_deviation` (octave,): on true pairs. `amplitude_of_drift` (drift, octave): the mean on
    drifted pairs, in these units. `amplitude_detected` (drift, sign): the share of drifted pairs whose large scales are
    found too weak, and too strong, beyond all but FALSE_ALARMS of true pairs.
    """
    method, frames = examined.method, (examined.previous, examined.true_next)
    large = _large_scales(examined.previous)

    def amplitudes(factor: float) -> torch.Tensor:
        pair = [method.whiten(filtered(x, 1 + (factor - 1) * large)) for x in frames]
        return _amplitudes(method, pair, examined.z_anchor, stream).cpu().double()

    usual = amplitudes(1.0)
    mean, deviation = usual[:, :-1].mean(0), usual[:, :-1].std(0)
    drifted = [amplitudes(factor) for factor in DRIFTS]
    return {
        "amplitude_mean": (("octave",), mean.numpy()),
        "amplitude_deviation": (("octave",), deviation.numpy()),
        "amplitude_of_drift": (
            ("drift", "octave"),
            [((d[:, :-1].mean(0) - mean) / deviation).numpy() for d in drifted],
        ),
        "amplitude_detected": (("drift", "sign"), [_shares_beyond(d[:, -1], usual[:, -1]) for d in drifted]),
    }


def _large_scales(frames: torch.Tensor) -> torch.Tensor:
    """Mask of the large scales, shells 1 to LARGE, among the modes of a half spectrum (N, N // 2 + 1)."""
    shells = torch.from_numpy(shell_index(frames.shape[-2:])).to(frames.device)
    return (shells >= 1) & (shells <= LARGE)


def _restored_shares(examined: _HeldOutPairs, seed: int) -> dict:
    """Share of a drift that one refinement takes back, (drift,).

    Both frames of held-out pairs have their shells 1 to LARGE multiplied by each of DRIFTS; d is what that adds to x_t.
    Let r be the change that the refinement then makes, less the change that it makes to the true pair. The share is
    -<r, d> / <d, d>. Below zero the refinement feeds the drift.
    """
    if not examined.estimates:
        return {}
    previous, true_next = examined.previous, examined.true_next
    large = _large_scales(previous)

    def change(prev, nxt):
        streams = [generator(seed, "restoring", row) for row in range(len(prev))]
        refined, _ = examined.method.refine(prev, nxt, examined.z_anchor, streams)
        return refined - nxt

    usual, shares = change(previous, true_next), []
    for factor in DRIFTS:
        drift = filtered(true_next, (factor - 1) * large)
        response = change(filtered(previous, 1 + (factor - 1) * large), true_next + drift) - usual
        shares.append(float(-(response * drift).sum() / drift.square().sum()))
    return {"restored": (("drift",), shares)}


def _one_step_errors(examined: _HeldOutPairs, seed: int) -> dict:
    """Root-mean-square error, by shell, of the surrogate's step from true frames: as it is, and refined.

    Both without what no frame of the system has, as in rollouts.
    """
    if not examined.estimates:
        return {}
    previous, true_next = examined.previous, examined.true_next
    streams = [generator(seed, "one step", row) for row in range(len(previous))]
    candidate, admissible = examined.candidate(previous), examined.method.frames.admissible
    refined, _ = examined.method.refine(previous, candidate, examined.z_anchor, streams)
    errors = [admissible(x) - true_next for x in (candidate, refined)]
    mean = [shell_power(error[:, None].cpu().numpy()).mean(0) / len(error) for error in errors]
    return {"one_step_error": (("when", "shell"), np.sqrt(mean))}


def _levels_along_rollout(examined: _HeldOutPairs, segments, dataset, system, emulation: Emulation) -> dict:
    """Return levels and amplitudes along a rollout of the surrogate alone, and the steps at which it leaves the range.

    These are the steps at which the amplitude of the large scales, and the energy, leave the solver's range.

    The solver's range is that of as many of its members, with frames as far apart.
    """
    frames, _ = open_segments(segments, system.variable)
    device = examined.previous.device
    scale = emulation.scale(device)
    step = np.rint(frames["time"].values / emulation.step).astype(int)
    members, stride = frames.sizes["member"], int(step[1] - step[0])

    def stored(index):
        return torch.from_numpy(frames[system.variable].isel(time=index).values).to(device) / scale

    def true(index):
        rows = np.arange(min(members, dataset.members))
        return dataset.gather(rows, np.full(len(rows), index * stride)).to(device)

    level, amplitude, energy = _watch(examined, stored, len(step), system, scale)
    true_level, true_amplitude, true_energy = _watch(examined, true, -(-dataset.frames // stride), system, scale)
    return {
        "rollout_level": (("rollout_step", "member", "frame"), level),
        "rollout_step": (("rollout_step",), step),
        "true_level": (("true_step", "true_member", "frame"), true_level),
        "rollout_amplitude": (("rollout_step", "member"), amplitude),
        "true_amplitude": (("true_step", "true_member"), true_amplitude),
        "amplitude_alarm": (("member",), first_alarm(amplitude, true_amplitude, step)),
        "energy_alarm": (
            ("member",),
            first_alarm(relative_energy(energy, true_energy), relative_energy(true_energy, true_energy), step),
        ),
    }


def _watch(examined: _HeldOutPairs, frame_at, count: int, system, scale) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three series of `count` frames x, in pairs of x and the surrogate's step from it.

    They are the estimated levels of the pairs (count, member, 2), the amplitude of the large scales that the score gives
    to the pairs (count, member), and the kinetic energy of x (count, member, layer).
    """
    method, stream = examined.method, generator("amplitudes")
    first, levels, amplitudes, energy = frame_at(0), [], [], []
    streams = [generator("unused", member) for member in range(len(first))]
    for index in range(count):
        frame = frame_at(index)
        z = [*(method.whiten(x) for x in (frame, examined.candidate(frame))), _anchors(method, first, streams)]
        levels.append(examined.estimated_levels(*z, streams))
        amplitudes.append(_amplitudes(method, z[:2], z[2], stream)[:, -1].cpu().numpy())
        u, v = system.frame_velocity(frame * scale)
        energy.append((0.5 * (u.square() + v.square())).mean((2, 3)).cpu().numpy())
    return np.stack(levels), np.stack(amplitudes), np.stack(energy)


def relative_energy(energy: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return the mean over layers of energies (T, member, layer), each over its usual mean, (T, member).

    The energies of layers may differ in units, so that their sum would be that of one of them.
    """
    return (energy / usual.mean((0, 1))).mean(-1)


def first_alarm(series: np.ndarray, usual: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Step at which the running mean of each member first leaves the usual range; -1 where it never does.

    `series` (T, member), `usual` (T', member'); the mean runs over ALARM_FRAMES frames, or over all of the shorter of the two.
    By construction no member of `usual` gives an alarm. NaN, a member that is lost, is one.
    """
    width = min(ALARM_FRAMES, len(series), len(usual))

    def smooth(values):
        total = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values]), 0)
        return (total[width:] - total[:-width]) / width

    usual_means, means = smooth(usual), smooth(series)
    out = ~((means >= usual_means.min()) & (means <= usual_means.max()))
    return np.where(out.any(0), step[len(step) - len(means) + out.argmax(0)], -1)
