"""What a denoiser knows: its error across the plane, the calibration of its heads, and what they say of a drift.

Four questions, answered on the held-out test split and, the last one, on a stored rollout of the surrogate alone:
how the denoising error of x_t depends on the level s2 of the conditioning frame (paper, figure 3); which level the
heads give to truly noised frames and to the surrogate's one-step output; how much of a drift of the large scales one
refinement takes back; and how long before its energy does the level tell that a rollout fails.
"""

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import described
from sns_core.data.pairs import PairSampler, load_dataset
from sns_core.data.segments import open_segments
from sns_core.files import whole_file
from sns_core.rollout.steppers import RefinementStepper, build_stepper
from sns_core.runtime import generator, select_device, use_threads
from sns_core.shells import filtered, shell_index, shell_power
from sns_core.systems import build_system

EXAMPLES = 5  # conditioning levels shown as fields
DRIFTS = (0.8, 0.9, 1.1, 1.2, 1.4)  # factors on the large scales of held-out pairs
LARGE = 4  # last shell that they are on
WATCHED = 10  # stored frames that an alarm averages over


def diagnose_denoiser(
    *, name: str, method: dict, models: dict, manifest: Path, segments: list[Path], seed: int, pairs: int, grid: int,
    output: Path, device: str = "auto", precision: str = "auto", threads: int = 1,
) -> None:  # fmt: skip
    """Examine the denoiser of a refinement method.

    `segments`: rollout of the surrogate alone; `pairs`: held-out pairs to average over; `grid`: number of levels
    between 0 and S at which errors and calibration are measured. Writes netCDF.
    """
    use_threads(threads)
    chosen = select_device(device)
    dataset = load_dataset(manifest, "test", verify=False)
    content = dataset.manifest
    system = build_system(content["system"]["name"], content["system"]["parameters"], torch.float32, chosen)
    stepper = build_stepper(method, models, system, content, chosen, precision)
    stream = generator(seed, "diagnose")  # the same pairs for every denoiser
    sampler = PairSampler(dataset, 2, anchor_gap=content["splits"]["test"][0]["shape"][1] // 4)
    anchor, previous, true_next = sampler.draw(pairs, stream).to(chosen).unbind(1)
    levels = torch.unique(torch.linspace(0, stepper.schedule.levels, grid).round().long())
    result = {
        **_condition_error(stepper, anchor, previous, true_next, levels, stream),
        **_calibration(stepper, anchor, previous, true_next, levels, stream),
        **_detection(stepper, anchor, previous, true_next),
        **_one_step(stepper, anchor, previous, true_next, seed),
        **_restoring(stepper, anchor, previous, true_next, seed),
        **_along_rollout(stepper, segments, dataset, content, chosen),
    }
    dataset = xr.Dataset(
        result,
        coords={
            "level": levels.numpy(),
            "drift": list(DRIFTS),
            "side": ["cleaner", "noisier"],
            "when": ["surrogate", "refined"],
        },
        attrs={"method": name, "levels": stepper.schedule.levels},
    )
    with whole_file(output) as temporary:
        described(dataset, system).to_netcdf(temporary, engine="netcdf4")


def _noised(stepper: RefinementStepper, z: torch.Tensor, level, stream) -> torch.Tensor:
    noise = torch.randn(z.shape, generator=stream).to(z)
    return stepper.schedule.add_noise(z, torch.as_tensor(level).expand(len(z)), noise)


def _condition_error(stepper, anchor, previous, true_next, levels, stream) -> dict:
    """Root-mean-square error of the clean estimate of x_t, noised to 0.9 S, against the level of x_{t-1}."""
    z_anchor, z_prev, z_next = (stepper.colour.whiten(x) for x in (anchor, previous, true_next))
    s_next = round(0.9 * stepper.schedule.levels)
    noised_next = _noised(stepper, z_next, s_next, stream)
    shown = set(levels[torch.linspace(0, len(levels) - 1, EXAMPLES).round().long()].tolist())
    errors, conditions, estimates = [], [], []
    signal, sigma = (float(table(torch.tensor(s_next))) for table in (stepper.schedule.signal, stepper.schedule.sigma))
    for level in levels.tolist():
        noised_prev = _noised(stepper, z_prev, level, stream)
        full = [torch.full((len(z_prev),), s) for s in (level, s_next)]
        _, noise = stepper.denoiser(noised_prev, noised_next, *full, z_anchor)
        estimate = stepper.colour.unwhiten((noised_next - sigma * noise) / signal)
        errors.append((estimate - true_next).square().mean((1, 2, 3)).sqrt().cpu().numpy())
        if level in shown:
            conditions.append(stepper.colour.unwhiten(noised_prev)[0].cpu().numpy())
            estimates.append(estimate[0].cpu().numpy())
    return {
        "condition_error": (("level", "pair"), np.stack(errors)),
        "example_level": (("example",), np.array(sorted(shown))),
        "example_condition": (("example", "layer", "y", "x"), np.stack(conditions)),
        "example_estimate": (("example", "layer", "y", "x"), np.stack(estimates)),
        "example_truth": (("layer", "y", "x"), true_next[0].cpu().numpy()),
    }


def _calibration(stepper, anchor, previous, true_next, levels, stream) -> dict:
    """Read-out for truly noised pairs (both frames at the same level) and for the surrogate's one-step output."""
    z_anchor, z_prev, z_next = (stepper.colour.whiten(x) for x in (anchor, previous, true_next))
    streams = [stream] * len(z_prev)

    def read(prev, nxt):
        return stepper.estimate(stepper.denoiser.look(prev, nxt, z_anchor), streams).numpy()

    estimated = [
        read(_noised(stepper, z_prev, s, stream), _noised(stepper, z_next, s, stream)) for s in levels.tolist()
    ]
    candidate = stepper.colour.whiten(stepper.surrogate.predict(previous))
    return {
        "estimated_level": (("level", "pair", "frame"), np.stack(estimated)),
        "level_of_true_pair": (("pair", "frame"), read(z_prev, z_next)),
        "level_of_surrogate": (("pair", "frame"), read(z_prev, candidate)),
    }


def _detection(stepper, anchor, previous, true_next) -> dict:
    """Share of held-out pairs with their shells 1 .. LARGE multiplied by each of DRIFTS, and of pairs of a true frame and the
    surrogate's step, that the heads find cleaner, and noisier, than all but 3 % of true pairs. Needs held-out frames alone, no
    rollout. The level is a ratio of noise to signal, so a field with too much energy looks cleaner than a true one."""
    z_anchor = stepper.colour.whiten(anchor)
    large = _large(previous)

    def noisiness(prev, nxt):
        look = stepper.denoiser.look(stepper.colour.whiten(prev), stepper.colour.whiten(nxt), z_anchor)
        level = torch.arange(stepper.schedule.levels + 1, device=prev.device)
        return (stepper.denoiser.logits(look).softmax(-1) * level).sum(-1).sum(-1)

    usual = noisiness(previous, true_next)
    low, high = torch.quantile(usual, 0.03), torch.quantile(usual, 0.97)

    def share(prev, nxt):
        found = noisiness(prev, nxt)
        return [float((found < low).float().mean()), float((found > high).float().mean())]

    scaled = [share(*(filtered(x, 1 + (factor - 1) * large) for x in (previous, true_next))) for factor in DRIFTS]
    return {
        "drift_detected": (("drift", "side"), scaled),
        "surrogate_detected": (("side",), share(previous, stepper.surrogate.predict(previous))),
    }


def _large(frames: torch.Tensor) -> torch.Tensor:
    """Which modes of a half spectrum (N, N // 2 + 1) are large scales: shells 1 .. LARGE."""
    shells = torch.from_numpy(shell_index(frames.shape[-1])).to(frames.device)
    return (shells >= 1) & (shells <= LARGE)


def _restoring(stepper, anchor, previous, true_next, seed: int) -> dict:
    """Share of a drift that one refinement takes back, (drift,): both frames of held-out pairs have their shells
    1 .. LARGE multiplied by each of DRIFTS, and d is what that adds to x_t. Of the change r that the refinement then makes,
    less the change that it makes to the true pair, the part along d: -<r, d> / <d, d>. Below zero the drift is fed."""
    if stepper.fixed:
        return {}
    large = _large(previous)

    def change(prev, nxt):
        streams = [generator(seed, "restoring", row) for row in range(len(prev))]
        refined, _ = stepper.refine(prev, nxt, anchor, streams)
        return refined - nxt

    usual, shares = change(previous, true_next), []
    for factor in DRIFTS:
        drift = filtered(true_next, (factor - 1) * large)
        answer = change(filtered(previous, 1 + (factor - 1) * large), true_next + drift) - usual
        shares.append(float(-(answer * drift).sum() / drift.square().sum()))
    return {"restored": (("drift",), shares)}


def _one_step(stepper, anchor, previous, true_next, seed: int) -> dict:
    """Root-mean-square error, by shell, of the surrogate's step from true frames: as it is, and refined."""
    streams = [generator(seed, "one step", row) for row in range(len(previous))]
    if stepper.fixed:
        return {}
    candidate = stepper.surrogate.predict(previous)
    refined, _ = stepper.refine(previous, candidate, anchor, streams)
    mean = [shell_power((x - true_next)[:, None].cpu().numpy()).mean(0) / len(x) for x in (candidate, refined)]
    return {"one_step_error": (("when", "shell"), np.sqrt(mean))}


def _along_rollout(stepper, segments, dataset, content, device) -> dict:
    """What is seen of every stored frame of a rollout of the surrogate alone, and the steps at which it is out of the
    range of what is seen of the solver's frames, as many members of them and as far apart."""
    frames, _ = open_segments(segments, stepper.system.variable)
    step = np.rint(frames["time"].values / content["emulator"]["step"]).astype(int)
    members, stride = frames.sizes["member"], int(step[1] - step[0])

    def stored(index):
        return torch.from_numpy(frames[stepper.system.variable].isel(time=index).values).to(device) / stepper.scale

    def true(index):
        every = np.arange(min(members, dataset.members))
        return dataset.gather(every, np.full(len(every), index * stride)).to(device)

    level, energy = _watch(stepper, stored, len(step))
    true_level, true_energy = _watch(stepper, true, -(-dataset.frames // stride))
    return {
        "rollout_level": (("rollout_step", "member", "frame"), level),
        "rollout_step": (("rollout_step",), step),
        "true_level": (("true_step", "true_member", "frame"), true_level),
        "level_alarm": (("member",), first_alarm(level.max(-1), true_level.max(-1), step, above=True)),
        "energy_alarm": (("member",), first_alarm(energy, true_energy, step)),
    }


def _watch(stepper, frame_at, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels (count, member, 2) of (x, surrogate(x)) for the frames x, and their kinetic energy (count, member)."""
    anchor, levels, energy = frame_at(0), [], []
    streams = [generator("unused", member) for member in range(len(anchor))]
    for index in range(count):
        frame = frame_at(index)
        z = [stepper.colour.whiten(x) for x in (frame, stepper.surrogate.predict(frame), anchor)]
        levels.append(stepper.estimate(stepper.denoiser.look(*z), streams).numpy())
        u, v = stepper.system.frame_velocity(frame * stepper.scale)
        energy.append((0.5 * (u.square() + v.square())).mean((1, 2, 3)).cpu().numpy())
    return np.stack(levels), np.stack(energy)


def first_alarm(series: np.ndarray, usual: np.ndarray, step: np.ndarray, above: bool = False) -> np.ndarray:
    """Step at which the running mean over WATCHED frames of each member of `series` (T, member) first leaves the range that
    the running means of `usual` (T', member') have (with `above`: passes its upper end); -1 where it never does.

    No member of `usual` gives an alarm, by construction; NaN, a member that is past watching, is one.
    """

    def smooth(values):
        width = min(WATCHED, len(values))
        total = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values]), 0)
        return (total[width:] - total[:-width]) / width

    range_, means = smooth(usual), smooth(series)
    low = -np.inf if above else range_.min()
    out = ~((means >= low) & (means <= range_.max()))
    return np.where(out.any(0), step[len(step) - len(means) + out.argmax(0)], -1)
