"""The paper's theorems on a linear Gaussian process, where laws, scores and level posteriors have closed forms.

The process x_t = A x_{t-1} + xi is a random field on an n x n torus. Its spectrum falls with the wavenumber, and each
mode decays at its own rate. The exact denoiser is the oracle of `diffusion.oracle`. The stage writes one netCDF file
with

    theorem 3.1     error of the law at (0, 0) against the number of levels, for each path and sampler
    theorem 3.3     distance of a trained network from the exact denoiser, against the training steps
    corollary 3.4   largest difference between the joint score and the conditional scores
    trade-off       error of the predicted x_t against the level s2 of a condition that has drifted, the best
                    level, and the level that the exact posterior estimates
    level           Fisher information about the noise level in each shell, against the noise colour
"""

import itertools
from pathlib import Path as FilePath

import numpy as np
import torch
import xarray as xr

from sns_core.data.attributes import write_described
from sns_core.device import use_threads
from sns_core.diffusion import GaussianOracle, NoiseSchedule, Path, Sampler
from sns_core.files import digest, provenance
from sns_core.networks import NetworkDenoiser, PeriodicUNet
from sns_core.progress import progress
from sns_core.shells import mode_weight, shell_index
from sns_core.streams import derive_seed, generator
from sns_core.systems import System

PATHS = {"A": Path.left_then_down, "B": Path.down_then_left, "C": Path.diagonal}
SAMPLERS = {
    "ancestral": Sampler(),
    "forward": Sampler(variance="forward"),
    "ddim": Sampler(eta=0.0),
    "heun": Sampler(eta=0.0, order=2),
}
COLOURS = (0.0, 0.25, 0.5, 1.0)
# The levels (s2, s1) where the walks start, as shares of S.
START = (0.45, 0.6)
# Channels, batch size and learning rate of the network that learns the process.
WIDTH, BATCH, RATE = 24, 64, 2e-3

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
    """Build the oracle of a Gaussian random field with unit variance on an n x n torus, n = `resolution`.

    A mode of shell K has the amplitude K^-slope, and 0.97^K is the correlation of successive frames (K >= 1).
    """
    n, frequencies = resolution, np.fft.fftfreq(resolution, 1 / resolution)
    shell = torch.from_numpy(np.rint(np.hypot(frequencies[:, None], frequencies[None, :]))).double().clamp(min=1)
    power, correlation = shell ** (-2 * slope), 0.97**shell
    power = power * (n**2 / power.sum())
    modes = torch.fft.fft2(torch.eye(n * n, dtype=torch.float64).view(-1, n, n)).flatten(1) / n  # a unitary matrix

    def circulant(eigenvalues):
        """Return the real matrix (n^2, n^2) that multiplies each Fourier mode by its eigenvalue."""
        return (modes.conj().mT @ (eigenvalues.flatten()[:, None] * modes)).real

    return GaussianOracle(circulant(correlation), circulant(power * (1 - correlation**2)), schedule)


def law_errors(levels: list[int]) -> dict:
    """Compute the error of the law at (0, 0) for numbers of levels, with each path and sampler (theorem 3.1).

    `law_error`: the largest error of the covariance, relative to the largest variance. `law_calls`: the number of
    network calls. Both are (path, sampler, level).
    """
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
    """Return the largest relative difference between the joint score and the two conditional scores (corollary 3.4).

    The conditional scores are computed by automatic differentiation of the conditional Gaussian densities.
    """
    oracle = GaussianOracle(torch.tensor([[0.8, 0.3], [-0.2, 0.7]]), torch.diag(torch.tensor([0.3, 0.5])), schedule)
    pairs = torch.randn(16, 4, generator=generator(seed, "score"), dtype=torch.float64)
    worst = 0.0
    for s_prev, s_next in itertools.product((1, schedule.levels // 3, schedule.levels), repeat=2):
        levels = torch.full((16,), s_prev), torch.full((16,), s_next)
        joint = oracle.score(pairs[:, :2], pairs[:, 2:], *levels)
        covariance = oracle.noised_covariance(*levels)[0]
        for half, condition in ((slice(0, 2), slice(2, 4)), (slice(2, 4), slice(0, 2))):
            gain = covariance[half, condition] @ torch.linalg.inv(covariance[condition, condition])
            spread = covariance[half, half] - gain @ covariance[condition, half]
            x = pairs[:, half].clone().requires_grad_()
            law = torch.distributions.MultivariateNormal(pairs[:, condition] @ gain.mT, spread)
            (conditional,) = torch.autograd.grad(law.log_prob(x).sum(), x)
            worst = max(worst, float((conditional - joint[:, half]).abs().max() / joint[:, half].abs().max()))
    return worst


def learn_process(oracle: GaussianOracle, resolution: int, training_steps: list[int], seed: int) -> dict:
    """Train a small network on the process, and compare its predicted noise with the oracle's (theorem 3.3).

    The network is compared after each number of steps in `training_steps`. `network_distance` (mark, shell): the mean
    square of the difference of the two predictions, relative to the mean square of the exact one, over both frames.
    `network_loss` (mark,) and `oracle_loss`: the denoising losses; on average they differ by the mean square of the
    difference.
    """
    network = _process_network(oracle.schedule.levels, seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0)
    process = oracle.schedule, torch.linalg.cholesky(oracle.covariance), resolution
    noised, levels, noise = _draw_pairs(*process, 512, generator(seed, "theory", "held out"))
    exact = torch.stack(oracle(*noised.double().unbind(1), *levels.unbind(1)), 1)
    distances, losses = [], []
    for step in progress(max(training_steps), "learning the Gaussian process"):
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * step / max(training_steps)))
        x, s, target = _draw_pairs(*process, BATCH, generator(seed, "theory", "train", step))
        loss = (network(x, s)[0] - target).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step + 1 in training_steps:
            predicted = torch.stack(NetworkDenoiser(network, anchor=False)(*noised.unbind(1), *levels.unbind(1)), 1)
            distances.append((_power_by_shell(predicted.double() - exact) / _power_by_shell(exact)).numpy())
            losses.append(float((predicted - noise).square().mean()))
    return {
        "network_distance": (("mark", "shell"), np.stack(distances)),
        "network_loss": (("mark",), np.array(losses)),
        "oracle_loss": ((), float((exact - noise).square().mean())),
    }


def _process_network(levels: int, seed: int) -> PeriodicUNet:
    """Return a small level-conditioned network with random weights, addressed by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", "theory"))
        return PeriodicUNet(
            channels=1,
            frames_in=2,
            frames_out=2,
            width=WIDTH,
            multipliers=(1, 2),
            blocks=1,
            attention=False,
            levels=levels,
            head_features="encoder",
            head_width=64,
            level_conditioned=True,
        )


def _draw_pairs(
    schedule: NoiseSchedule, factor: torch.Tensor, resolution: int, count: int, stream: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw noised pairs (count, 2, 1, n, n), their levels (count, 2), 1 to S, and the noise in them.

    `factor` (2 n^2, 2 n^2): the Cholesky factor of the covariance of a clean pair.
    """
    white = torch.randn(count, len(factor), generator=stream, dtype=torch.float64)
    clean = (white @ factor.mT).float().view(count, 2, 1, resolution, resolution)
    levels = torch.randint(1, schedule.levels + 1, (count, 2), generator=stream)
    noise = torch.randn(clean.shape, generator=stream)
    noised = schedule.add_noise(clean.flatten(0, 1), levels.flatten(), noise.flatten(0, 1)).view_as(clean)
    return noised, levels, noise


def _power_by_shell(fields: torch.Tensor) -> torch.Tensor:
    """Return the mean power (K,) of all modes of a half spectrum in each shell, of fields (B, 2, 1, n, n)."""
    shells = torch.from_numpy(shell_index(fields.shape[-1])).flatten()
    power = torch.fft.rfft2(fields, norm="ortho").abs().square().flatten(-2).mean((0, 1, 2))
    return torch.zeros(int(shells.max()) + 1, dtype=power.dtype).index_add_(0, shells, power)


def trade_off(oracle: GaussianOracle, drifts: list[float], seed: int, pairs: int = 64) -> dict:
    """Compute the error of x_t predicted from a condition that has drifted, against the level s2 of the condition.

    The drift is white noise of a standard deviation in `drifts`. `condition_error` (drift, level): the mean square
    distance of E[x_t | condition at s2] from the prediction of the frame without drift. It is the sum of the loss by
    noise, which grows with s2, and the error by the drift, which falls with s2. `best_level` (drift,): the level of the
    least error. `estimated_level` (drift, pair): the mean of the exact posterior over the level of the drifted frame.
    """
    schedule, d = oracle.schedule, oracle.size
    levels = torch.arange(schedule.levels + 1)
    values, vectors = torch.linalg.eigh(oracle.stationary)
    # The transition is circulant like the covariance, so it is diagonal in the same eigenvectors.
    correlation = (vectors.mT @ oracle.transition @ vectors).diagonal()
    signal, sigma = schedule.signal(levels)[:, None], schedule.sigma(levels)[:, None]
    gain = correlation * signal * values / (signal**2 * values + sigma**2)
    errors, estimated = [], []
    clean = torch.randn(pairs, d, generator=generator(seed, "drift"), dtype=torch.float64) * values.sqrt()
    direction = torch.randn(pairs, d, generator=generator(seed, "direction"), dtype=torch.float64)
    for drift in drifts:
        loss_by_noise = (gain * signal - correlation) ** 2 * values + gain**2 * sigma**2
        errors.append(((loss_by_noise + gain**2 * signal**2 * drift**2).mean(1)).numpy())
        # This is the posterior for a single frame. Its modes are independent, so it needs no matrix; the oracle's
        # `level_posterior` is for pairs.
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
    """Compute the Fisher information about the level s in each shell of a field with amplitude K^-slope.

    `information` is (colour, level, shell). A mode with variance l in the coordinates of the colour has the variance
    v = a l + 1 - a when it is noised, so n modes have the information n / 2 (d ln v / d s)^2.
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
        noised_variance = schedule.alpha_bar[:, None] * variance + 1 - schedule.alpha_bar[:, None]
        rows.append((0.5 * modes * (change * (variance - 1) / noised_variance) ** 2).numpy())
    return {"information": (("colour", "level", "shell_of_field"), np.stack(rows))}


def compute_theory(
    *,
    levels: list,
    resolution: int,
    network_levels: int,
    training_steps: list,
    drifts: list,
    seed: int,
    output: FilePath,
    threads: int = 1,
) -> None:
    """Compute the paper's theorems on a Gaussian process, and write them to one netCDF file.

    `levels`: the numbers of levels for theorem 3.1.
    `resolution`: points per side of the field.
    `network_levels`: S, the number of levels in the other parts.
    `training_steps`: the training steps after which the network is compared with the oracle.
    `drifts`: the standard deviations of the drift in the trade-off.
    `seed`: the run's seed.
    `output`: the netCDF file.
    `threads`: number of threads.
    """
    use_threads(threads)
    settings = {
        "levels": levels,
        "resolution": resolution,
        "network_levels": network_levels,
        "training_steps": training_steps,
        "drifts": drifts,
    }
    schedule = NoiseSchedule.cosine(network_levels)
    oracle = field_process(resolution, schedule)
    parts = {
        **law_errors(levels),
        "score_difference": ((), score_difference(schedule, seed)),
        **learn_process(oracle, resolution, training_steps, seed),
        **trade_off(oracle, drifts, seed),
        **level_information(schedule, 32, 2.0),
    }
    coordinates = {
        "path": list(PATHS),
        "sampler": list(SAMPLERS),
        "levels": levels,
        "mark": training_steps,
        "drift": drifts,
        "colour": list(COLOURS),
        "level": np.arange(network_levels + 1),
    }
    record = provenance(settings, seed, "cpu")
    result = xr.Dataset(parts, coordinates, {"identity": digest([settings, seed]), "commit": str(record["code"])})
    title = "The paper's theorems on a Gaussian process where everything is known"
    write_described(result, System, output, title=title, stage="compute_theory", table=VARIABLES)
