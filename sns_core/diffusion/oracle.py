"""The exact denoiser of a linear Gaussian process. Samplers, paths and level heads are tested against it.

The process and its stationary covariance Sigma are

    x_t = A x_{t-1} + xi,   xi ~ N(0, Q),   Sigma = A Sigma A^T + Q.

The clean pair x = (x_{t-1}, x_t) is Gaussian with covariance C = [[Sigma, Sigma A^T], [A Sigma, Sigma]]. Let D =
diag(sqrt(a2), sqrt(a1)) and N = diag(1 - a2, 1 - a1), in blocks of one frame each, where a is the cumulative signal of
a level. The pair noised to the levels (s2, s1), y = D x + sqrt(N) eps, has the covariance M = D C D + N. The minimiser
of the denoising loss (paper, theorem 3.3) and the score are

    E[x | y] = C D M^{-1} y,        E[eps | y] = sqrt(N) M^{-1} y,        score = -M^{-1} y.
"""

import math

import torch

from sns_core.diffusion.plane import Path, Sampler, predictable
from sns_core.diffusion.schedule import Levels, NoiseSchedule


class GaussianOracle:
    """The exact `Denoiser` of x_t = A x_{t-1} + xi, for frames of any shape with d values in total.

    Parameters: `transition` A (d, d), with spectral radius below 1; `innovation` Q (d, d), positive definite;
    `schedule` of the noise levels. The oracle computes in float64. Raises ValueError where the shapes do not fit or the
    process is not stationary.
    """

    def __init__(self, transition: torch.Tensor, innovation: torch.Tensor, schedule: NoiseSchedule):
        a, q = (torch.as_tensor(m, dtype=torch.float64) for m in (transition, innovation))
        if a.ndim != 2 or a.shape[0] != a.shape[1] or q.shape != a.shape:
            raise ValueError(f"transition {tuple(a.shape)} and innovation {tuple(q.shape)} must be one square shape")
        if torch.linalg.eigvals(a).abs().max() >= 1:
            raise ValueError("the process is not stationary: its transition has an eigenvalue of modulus 1 or more")
        self.transition, self.innovation, self.schedule = a, q, schedule
        self.size = d = len(a)
        identity = torch.eye(d * d, dtype=torch.float64)
        self.stationary = torch.linalg.solve(identity - torch.kron(a, a), q.reshape(-1)).reshape(d, d)
        cross = a @ self.stationary
        self.covariance = torch.cat([torch.cat([self.stationary, cross.mT], 1), torch.cat([cross, self.stationary], 1)])

    def sample(self, members: int, generator: torch.Generator, shape: tuple[int, ...] | None = None):
        """Draw clean pairs (x_prev, x_next), each (members, *shape), from the stationary law."""
        factor = torch.linalg.cholesky(self.covariance)
        pair = torch.randn(members, 2 * self.size, generator=generator, dtype=torch.float64) @ factor.mT
        shape = shape or (self.size,)
        return pair[:, : self.size].reshape(members, *shape), pair[:, self.size :].reshape(members, *shape)

    def _scales(self, s_prev: Levels, s_next: Levels) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the diagonals of D and of sqrt(N), (B, 2 d) each."""

        def diagonal(of_level):
            return torch.cat([of_level(s)[:, None].expand(-1, self.size) for s in (s_prev, s_next)], 1)

        return diagonal(self.schedule.signal), diagonal(self.schedule.sigma)

    def noised_covariance(self, s_prev: Levels, s_next: Levels) -> torch.Tensor:
        """Return the covariance M (B, 2 d, 2 d) of the noised pair at the levels (B,)."""
        signal, sigma = self._scales(s_prev, s_next)
        return signal[:, :, None] * self.covariance * signal[:, None, :] + torch.diag_embed(sigma**2)

    def score(self, x_prev, x_next, s_prev: Levels, s_next: Levels) -> torch.Tensor:
        """Return the score (B, 2 d) of the noised pair's joint law.

        Each half of the joint score is also the score of one noised frame given the other (paper, corollary 3.4).
        """
        pair = torch.cat([x_prev.reshape(len(x_prev), -1), x_next.reshape(len(x_next), -1)], 1).double()
        return -torch.linalg.solve(self.noised_covariance(s_prev, s_next), pair[:, :, None])[:, :, 0]

    def __call__(self, x_prev, x_next, s_prev: Levels, s_next: Levels, anchor=None):
        """Return the expected noise E[eps | y] of both frames, each with the shape and type of its frame."""
        score = self.score(x_prev, x_next, s_prev, s_next)
        noise = -self._scales(s_prev, s_next)[1] * score
        halves = noise[:, : self.size], noise[:, self.size :]
        return tuple(half.reshape(x.shape).to(x.dtype) for half, x in zip(halves, (x_prev, x_next), strict=True))

    def clean_estimate(self, x_prev, x_next, s_prev: Levels, s_next: Levels) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the expected clean pair E[x | y]: two tensors (B, ...), each with the shape of its frame."""
        score = self.score(x_prev, x_next, s_prev, s_next)
        signal, _ = self._scales(s_prev, s_next)
        clean = -(signal * score) @ self.covariance
        return clean[:, : self.size].reshape(x_prev.shape), clean[:, self.size :].reshape(x_next.shape)

    def level_posterior(self, x_prev, x_next) -> torch.Tensor:
        """Return p(s2, s1 | pair) (B, S + 1, S + 1), with s2 first, under a uniform prior over both levels.

        The sum over the last axis is the output of a perfect network's head for the previous frame; the sum over the
        middle axis is the output of the perfect head for the next frame.
        """
        count = self.schedule.levels + 1
        pair = torch.cat([x_prev.reshape(len(x_prev), -1), x_next.reshape(len(x_next), -1)], 1).double()
        s_next, rows = torch.arange(count), []
        for s_prev in range(count):
            factor = torch.linalg.cholesky(self.noised_covariance(torch.full_like(s_next, s_prev), s_next))
            whitened = torch.linalg.solve_triangular(factor, pair.mT.expand(count, -1, -1), upper=False)
            log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            rows.append(-0.5 * whitened.square().sum(1) - log_det[:, None] - self.size * math.log(2 * math.pi))
        log_density = torch.stack(rows).permute(2, 0, 1)
        return log_density.flatten(1).softmax(1).view(-1, count, count)

    def level_logits(self, x_prev, x_next, anchor=None) -> torch.Tensor:
        """Logarithms of p(s2 | pair) and p(s1 | pair), (B, 2, S + 1): the logits that two perfect heads would give."""
        posterior = self.level_posterior(x_prev, x_next)
        return torch.stack([posterior.sum(2), posterior.sum(1)], 1).clamp(min=1e-300).log()

    def _noise_map(self, levels: torch.Tensor) -> torch.Tensor:
        """Return the matrix (2 d, 2 d) that maps a noised pair at the levels (1, 2) to the predicted noise."""
        _, sigma = self._scales(levels[:, 0], levels[:, 1])
        return sigma[0][:, None] * torch.linalg.inv(self.noised_covariance(levels[:, 0], levels[:, 1])[0])

    def propagate(self, path: Path, mean: torch.Tensor, covariance: torch.Tensor, sampler: Sampler | None = None):
        """Return the mean (2 d,) and the covariance (2 d, 2 d) of a Gaussian pair after a walk along `path`.

        `mean` and `covariance` are those of the pair where the path starts. Nothing is sampled: with the exact denoiser
        every reverse step is linear, y <- L y + F noise. Raises ValueError for a path of several members, for a path
        that renoises, and for a sampler with a clip.
        """
        sampler = sampler or Sampler()
        if path.levels.shape[1] != 1 or path.renoise or sampler.clip is not None:
            raise ValueError("propagation needs a path of one member, without renoising, and a sampler without clip")
        d = self.size
        for start, stop in zip(path.levels[:-1], path.levels[1:], strict=True):
            predict = self._noise_map(start)
            coefficients = [
                self.schedule.reverse_coefficients(start[:, side], stop[:, side], sampler.eta, sampler.variance)
                if start[0, side] != stop[0, side]
                else (torch.ones(1), torch.zeros(1), torch.zeros(1))
                for side in (0, 1)
            ]
            of_x, of_noise, fresh = (
                torch.cat([c.double().expand(d) for c in pair]) for pair in zip(*coefficients, strict=True)
            )
            step = torch.diag(of_x) + of_noise[:, None] * predict
            if sampler.order == 2 and bool(predictable(start, stop)):
                predict = 0.5 * (predict + self._noise_map(stop) @ step)
                step = torch.diag(of_x) + of_noise[:, None] * predict
            mean, covariance = step @ mean, step @ covariance @ step.mT + torch.diag(fresh**2)
        return mean, covariance
