"""The theorems on a linear Gaussian process, where every law, score and level posterior is a closed form.

The process is a random field on an n x n torus with a falling spectrum, whose modes decay each at its own rate:
x_t = A x_{t-1} + xi, so the exact denoiser is the oracle of `diffusion.oracle`. Written as one netCDF file:

theorem 3.1     error of the law at (0, 0) against the number of levels, for each path and sampler
theorem 3.3     distance of a trained network from the exact denoiser, against the number of training steps
corollary 3.4   largest difference of the joint score from the conditional ones
trade-off       error of the predicted x_t against the level s2 of a condition that has drifted, and its optimum beside
                the level that the exact posterior estimates
level           Fisher information about the noise level, shell by shell, against the noise colour
"""

import itertools
from pathlib import Path as FilePath

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import described
from sns_core.diffusion import GaussianOracle, NoiseSchedule, Path, Sampler
from sns_core.files import digest, provenance, whole_file
from sns_core.networks import NetworkDenoiser, PeriodicUNet
from sns_core.runtime import derive_seed, generator, progress, use_threads
from sns_core.shells import mode_weight, shell_index
from sns_core.systems import System

PATHS = {"A": Path.left_then_down, "B": Path.down_then_left, "C": Path.diagonal}
SAMPLERS = {
    "ancestral": Sampler(),
    "forward": Sampler(variance="forward"),
    "ddim": Sampler(eta=0.0),
    "heun": Sampler(eta=0.0, order=2),
}
COLOURS = (0.0, 0.25, 0.5, 1.0)
START = (0.45, 0.6)  # where the walks begin, (s2, s1) as shares of S
WIDTH, BATCH, RATE = 24, 64, 2e-3  # of the network that learns the process

# Name in the file -> (kind of units, long name), as `described` takes them.
VARIABLES = {
    "law_error": ("1", "largest error of the covariance at the end of a path, as a share of the largest variance"),
    "law_calls": ("1", "calls of the denoiser along the path"),
    "score_difference": ("1", "largest relative difference of the joint score from the conditional scores"),
    "network_distance": ("1", "mean squared difference of predicted and exact noise, as a share of the exact one's"),
    "network_loss": ("1", "denoising loss of the network"),
    "oracle_loss": ("1", "denoising loss of the exact denoiser"),
    "condition_error": ("1", "mean squared distance from the mean that the undrifted frame would give"),
    "best_level": ("1", "noise level of the condition with the least error"),
    "estimated_level": ("1", "noise level that the exact posterior gives the drifted frame"),
    "information": ("1", "Fisher information of the shell about the noise level"),
    "path": (None, "path through the plane of noise levels"),
    "sampler": (None, "sampler"),
    "levels": ("1", "number of noise levels"),
    "level": ("1", "noise level"),
    "mark": ("1", "training step"),
    "drift": ("1", "standard deviation of the drift of the condition"),
    "colour": ("1", "exponent of the noise colour"),
}


def field_process(resolution: int, schedule: NoiseSchedule, slope: float = 1.5) -> GaussianOracle:
    """A Gaussian random field on an n x n torus with unit variance: amplitude K^-slope in shell K, correlation 0.97 a step
    in shell 0 and 1, falling with K."""
    n, full = resolution, np.fft.fftfreq(resolution, 1 / resolution)
    shell = torch.from_numpy(np.rint(np.hypot(full[:, None], full[None, :]))).double().clamp(min=1)
    power, memory = shell ** (-2 * slope), 0.97**shell
    power = power * (n**2 / power.sum())
    modes = torch.fft.fft2(torch.eye(n * n, dtype=torch.float64).view(-1, n, n)).flatten(1) / n  # unitary

    def circulant(eigenvalues):
        return (modes.conj().mT @ (eigenvalues.flatten()[:, None] * modes)).real

    return GaussianOracle(circulant(memory), circulant(power * (1 - memory**2)), schedule)


def law_errors(levels: list[int]) -> dict:
    """Largest error of the covariance at (0, 0), relative to the largest variance, (path, sampler, level)."""
    transition = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [-0.1, 0.0, 0.6]])
    innovation = torch.diag(torch.tensor([0.2, 0.4, 0.6]))
    errors, calls = (np.zeros((len(PATHS), len(SAMPLERS), len(levels))) for _ in range(2))
    for (i, path), (j, sampler), (k, count) in itertools.product(
        enumerate(PATHS.values()), enumerate(SAMPLERS.values()), enumerate(levels)
    ):
        oracle = GaussianOracle(transition, innovation, NoiseSchedule.cosine(count))
        walk = path(*(round(share * count) for share in START))
        start = oracle.noised_covariance(*walk.start.unbind(1))[0]
        _, end = oracle.propagate(walk, torch.zeros(6, dtype=torch.float64), start, sampler)
        errors[i, j, k] = (end - oracle.covariance).abs().max() / oracle.covariance.max()
        calls[i, j, k] = sampler.calls(walk)[0]
    axes = ("path", "sampler", "levels")
    return {"law_error": (axes, errors), "law_calls": (axes, calls)}


def score_difference(schedule: NoiseSchedule, seed: int) -> float:
    """Largest relative difference of the halves of the joint score from the scores of the two conditional laws, these
    by automatic differentiation of their Gaussian densities."""
    oracle = GaussianOracle(torch.tensor([[0.8, 0.3], [-0.2, 0.7]]), torch.diag(torch.tensor([0.3, 0.5])), schedule)
    pairs = torch.randn(16, 4, generator=generator(seed, "score"), dtype=torch.float64)
    worst = 0.0
    for s_prev, s_next in itertools.product((1, schedule.levels // 3, schedule.levels), repeat=2):
        levels = torch.full((16,), s_prev), torch.full((16,), s_next)
        joint = oracle.score(pairs[:, :2], pairs[:, 2:], *levels)
        covariance = oracle.noised_covariance(*levels)[0]
        for half in (slice(0, 2), slice(2, 4)):
            other = slice(2, 4) if half.start == 0 else slice(0, 2)
            gain = covariance[half, other] @ torch.linalg.inv(covariance[other, other])
            spread = covariance[half, half] - gain @ covariance[other, half]
            x = pairs[:, half].clone().requires_grad_()
            law = torch.distributions.MultivariateNormal(pairs[:, other] @ gain.mT, spread)
            (conditional,) = torch.autograd.grad(law.log_prob(x).sum(), x)
            worst = max(worst, float((conditional - joint[:, half]).abs().max() / joint[:, half].abs().max()))
    return worst


def learn_process(oracle: GaussianOracle, resolution: int, marks: list[int], seed: int) -> dict:
    """Train a small network on the process and hold its predicted noise against the oracle's at the steps `marks`.

    `network_distance`: mean squared difference of the two predictions over the mean square of the exact one, (mark,
    shell), for both frames together; `network_loss` and `oracle_loss`: the denoising losses, which differ by as much.
    """
    schedule, shape = oracle.schedule, (1, resolution, resolution)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", "theory"))
        network = PeriodicUNet(
            channels=1, frames_in=2, frames_out=2, width=WIDTH, multipliers=(1, 2), blocks=1, attention=False,
            levels=schedule.levels, head_features="encoder", head_width=64, told=True,
        )  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0)
    factor = torch.linalg.cholesky(oracle.covariance)

    def draw(count, *address):
        stream = generator(seed, "theory", *address)
        pair = (torch.randn(count, 2 * oracle.size, generator=stream, dtype=torch.float64) @ factor.mT).float()
        levels = torch.randint(1, schedule.levels + 1, (count, 2), generator=stream)
        noise = torch.randn(count, 2, *shape, generator=stream)
        clean = pair.view(count, 2, *shape)
        noised = schedule.add_noise(clean.flatten(0, 1), levels.flatten(), noise.flatten(0, 1)).view_as(clean)
        return noised, levels, noise

    noised, levels, noise = draw(512, "held out")
    exact = torch.stack(oracle(*noised.double().unbind(1), *levels.unbind(1)), 1)
    shells = torch.from_numpy(shell_index(resolution)).flatten()
    count, rows, losses = int(shells.max()) + 1, [], []

    def by_shell(field):
        power = torch.fft.rfft2(field, norm="ortho").abs().square().flatten(-2).mean((0, 1, 2))
        return torch.zeros(count, dtype=power.dtype).index_add_(0, shells, power)

    for step in progress(max(marks), "learning the Gaussian process"):
        rate = RATE * 0.5 * (1 + np.cos(np.pi * step / max(marks)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        x, s, target = draw(BATCH, "train", step)
        loss = (network(x, s)[0] - target).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step + 1 in marks:
            predicted = NetworkDenoiser(network, anchor=False)(*noised.unbind(1), *levels.unbind(1))
            difference = torch.stack(predicted, 1).double() - exact
            rows.append((by_shell(difference) / by_shell(exact)).numpy())
            losses.append(float((torch.stack(predicted, 1) - noise).square().mean()))
    return {
        "network_distance": (("mark", "shell"), np.stack(rows)),
        "network_loss": (("mark",), np.array(losses)),
        "oracle_loss": ((), float((exact - noise).square().mean())),
    }


def trade_off(oracle: GaussianOracle, drifts: list[float], seed: int, pairs: int = 64) -> dict:
    """Error of E[x_t | condition at s2] against s2 where the condition has drifted by white noise of a standard deviation,
    its optimum, and the level that the exact posterior gives such a condition.

    The error is the mean square distance from what the undrifted frame would give, the smallest that any method can have;
    it is what noise takes (growing with s2) and what the drift adds (falling).
    """
    schedule, d = oracle.schedule, oracle.size
    levels = torch.arange(schedule.levels + 1)
    values, vectors = torch.linalg.eigh(oracle.stationary)
    memory = (vectors.mT @ oracle.transition @ vectors).diagonal()  # both are circulant
    signal, sigma = schedule.signal(levels)[:, None], schedule.sigma(levels)[:, None]
    gain = memory * signal * values / (signal**2 * values + sigma**2)
    errors, estimated = [], []
    clean = torch.randn(pairs, d, generator=generator(seed, "drift"), dtype=torch.float64) * values.sqrt()
    direction = torch.randn(pairs, d, generator=generator(seed, "direction"), dtype=torch.float64)
    for drift in drifts:
        lost = (gain * signal - memory) ** 2 * values + gain**2 * sigma**2
        errors.append(((lost + gain**2 * signal**2 * drift**2).mean(1)).numpy())
        # The posterior of the level of one frame alone: modes are independent.
        spread = signal**2 * values + sigma**2
        power = (clean + drift * direction).square()
        log_density = -0.5 * (power[:, None] / spread).sum(-1) - 0.5 * spread.log().sum(-1)
        estimated.append((log_density.softmax(1) * levels).sum(1).numpy())
    return {
        "condition_error": (("drift", "level"), np.stack(errors)),
        "best_level": (("drift",), np.stack(errors).argmin(1)),
        "estimated_level": (("drift", "pair"), np.stack(estimated)),
    }


def level_information(schedule: NoiseSchedule, resolution: int, slope: float) -> dict:
    """Fisher information about the level s that each shell of a field with amplitude K^-slope holds, (colour, level, shell).

    A mode of variance l in the coordinates of the colour is seen with variance v = a l + 1 - a, so that n modes hold
    n / 2 (d ln v / d s)^2.
    """
    shells = torch.from_numpy(shell_index(resolution))
    weight = torch.from_numpy(mode_weight(resolution))
    modes = torch.zeros(int(shells.max()) + 1, dtype=torch.float64).index_add_(0, shells.flatten(), weight.flatten())
    amplitude = torch.arange(len(modes)).clamp(min=1).double() ** -slope
    change = torch.gradient(schedule.alpha_bar)[0][:, None]
    rows = []
    for colour in COLOURS:
        variance = amplitude ** (2 * (1 - colour))
        variance = variance * modes.sum() / (modes * variance).sum()
        seen = schedule.alpha_bar[:, None] * variance + 1 - schedule.alpha_bar[:, None]
        rows.append((0.5 * modes * (change * (variance - 1) / seen) ** 2).numpy())
    return {"information": (("colour", "level", "shell_of_field"), np.stack(rows))}


def compute_theory(
    *, levels: list, resolution: int, network_levels: int, marks: list, drifts: list, seed: int, output: FilePath,
    threads: int = 1,
) -> None:  # fmt: skip
    """Compute all of the above.

    `levels`: numbers of levels of theorem 3.1; `resolution`: points a side of the field; `network_levels`: S of the other
    parts; `marks`: training steps at which the network is examined; `drifts`: standard deviations.
    """
    use_threads(threads)
    settings = {
        "levels": levels,
        "resolution": resolution,
        "network_levels": network_levels,
        "marks": marks,
        "drifts": drifts,
    }
    schedule = NoiseSchedule.cosine(network_levels)
    oracle = field_process(resolution, schedule)
    parts = {
        **law_errors(levels),
        "score_difference": ((), score_difference(schedule, seed)),
        **learn_process(oracle, resolution, marks, seed),
        **trade_off(oracle, drifts, seed),
        **level_information(schedule, 32, 2.0),
    }
    coordinates = {
        "path": list(PATHS), "sampler": list(SAMPLERS), "levels": levels, "mark": marks, "drift": drifts,
        "colour": list(COLOURS), "level": np.arange(network_levels + 1),
    }  # fmt: skip
    record = provenance(settings, seed, "cpu")
    result = xr.Dataset(parts, coordinates, {"identity": digest([settings, seed]), "commit": str(record["code"])})
    with whole_file(output) as temporary:
        described(result, System, VARIABLES).to_netcdf(temporary, engine="netcdf4")
