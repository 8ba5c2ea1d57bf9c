"""Training and rollout in the simplest code, as the reference for the speed of this project's code.

It follows the published code. At every call of the network the encoder runs once for each head, and the
decoder takes the features of the last of these passes. In a rollout such passes read the heads. Then one call denoises one
frame at each level of the path; all members are computed at all levels, and masks and Python branches pick the results.
Everything is float32, and every frame on the way is stored. In training, averages and optimiser go parameter by parameter,
and batches come through a DataLoader on the host. Network, path and levels are this project's.
"""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset):
    """Samples (anchor, previous, next) of trajectories (members, times, C, N, N)."""

    def __init__(self, frames: torch.Tensor, gap: int):
        self.frames, self.gap = frames, gap

    def __len__(self) -> int:
        return len(self.frames) * (self.frames.shape[1] - 1)

    def __getitem__(self, index: int) -> torch.Tensor:
        member, time = divmod(index, self.frames.shape[1] - 1)
        far = (time + self.gap) % self.frames.shape[1]
        return torch.stack([self.frames[member, far], self.frames[member, time], self.frames[member, time + 1]])


def call(network, frames, passes):
    """Return output and logits of a network with heads, by `passes` of the encoder: one per head, or 1 that both share."""
    encoded = [network.encode(frames) for _ in range(passes)]
    logits = torch.stack([encoded[head % passes][2][:, head] for head in range(2)], 1)
    return network.decode(*encoded[-1][:2], logits.softmax(-1)), logits


def train(network, frames, gap, colour, schedule, batch, level_weight, passes, steps):
    """Train for `steps` and return the losses. `passes` of the encoder per step: one per head, or 1 that both share."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5, weight_decay=0.05, foreach=False)
    average = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    batches, losses = iter(()), []
    for _ in range(steps):
        try:
            sample = next(batches)
        except StopIteration:
            batches = iter(DataLoader(Pairs(frames, gap), batch_size=batch, shuffle=True, drop_last=True))
            sample = next(batches)
        z = colour.whiten(sample)
        noised, noises, levels = [z[:, 0]], [], []
        for frame in (z[:, 1], z[:, 2]):
            level, noise = torch.randint(schedule.levels + 1, (len(z),)), torch.randn_like(frame)
            noised.append(schedule.add_noise(frame, level, noise))
            noises.append(noise)
            levels.append(level)
        pair = torch.stack(noised, 1)
        output, logits = call(network, pair, passes)
        loss = F.mse_loss(output, torch.stack(noises, 1))
        for head, level in enumerate(levels):
            loss = loss + level_weight * F.cross_entropy(logits[:, head], level)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        for name, parameter in network.named_parameters():
            average[name].mul_(0.998).add_(parameter.detach(), alpha=0.002)
        losses.append(loss.item())
    return losses


class Rollout:
    """Refinement along path A, or with `shared_level` along the diagonal from the higher of both levels.

    `surrogate`, `denoiser`: networks; `increment_std` (C, 1, 1): unit of the surrogate's output; `readout`: maps logits
    (B, 2, S + 1) to levels; `max_level`: bound of the levels; `clip`: bound of clean estimates; `renoise`: add noise up to
    the levels; `gain` (N, N // 2 + 1): factor of the change of each mode; `stride`: levels per move. None: no such step.
    """

    def __init__(
        self,
        surrogate,
        denoiser,
        increment_std,
        colour,
        schedule,
        readout,
        *,
        max_level,
        clip,
        renoise,
        shared_level,
        gain,
        stride,
    ):
        self.surrogate, self.denoiser, self.increment_std = surrogate, denoiser, increment_std
        self.colour, self.schedule, self.readout, self.max_level, self.clip = colour, schedule, readout, max_level, clip
        self.renoise, self.shared_level, self.gain, self.stride = renoise, shared_level, gain, stride
        self.history = []

    @torch.no_grad()
    def step(self, previous, anchor):
        """Return the next frames of `previous` (B, C, m, m); `anchor`: the initial frames."""
        candidate = previous + self.increment_std * self.surrogate(previous[:, None])[0][:, 0]
        z_anchor, z_prev, z_next = (self.colour.whiten(frame) for frame in (anchor, previous, candidate))
        pair = torch.stack([z_anchor, z_prev, z_next], 1)
        s_prev, s_next = (self.readout(self.denoiser.encode(pair)[2])[:, head] for head in range(2))
        if self.max_level is not None:
            s_prev, s_next = s_prev.clamp(max=self.max_level), s_next.clamp(max=self.max_level)
        if self.shared_level:
            s_prev = s_next = torch.maximum(s_prev, s_next)
        z_prev, z_next = self.place(z_prev, s_prev), self.place(z_next, s_next)
        self.history.append((previous, candidate, s_prev, s_next, z_prev, z_next))
        if self.shared_level:
            for done in range(0, int(s_next.max()), self.stride):
                z_prev, z_next = (self.move(z_anchor, z_prev, z_next, side, s_next, done) for side in range(2))
                self.history.append((z_prev, z_next))
        else:
            for done in range(0, int(s_prev.max()), self.stride):
                z_prev = self.move(z_anchor, z_prev, z_next, 0, s_prev, done)
                self.history.append((z_prev, z_next))
            for done in range(0, int(s_next.max()), self.stride):
                z_next = self.move(z_anchor, z_prev, z_next, 1, s_next, done)
                self.history.append((z_prev, z_next))
        refined = torch.where((s_next > 0)[:, None, None, None], self.colour.unwhiten(z_next), candidate)
        if self.gain is not None:
            change = torch.fft.rfft2(refined - candidate) * self.gain
            refined = candidate + torch.fft.irfft2(change, s=refined.shape[-2:])
        return refined

    def place(self, z, level):
        """Return a frame at the start of its walk."""
        noise = torch.randn_like(z) if self.renoise else torch.zeros_like(z)
        return self.schedule.add_noise(z, level, noise)

    def move(self, z_anchor, z_prev, z_next, side, first_level, done):
        """Return one frame after a reverse step from `done` levels below the `first_level` of its member."""
        x, start = (z_prev, z_next)[side], first_level - done
        mask = start > 0
        start = torch.where(mask, start, 1)
        stop = (start - self.stride).clamp(min=0)
        noise = call(self.denoiser, torch.stack([z_anchor, z_prev, z_next], 1), 2)[0][:, side]
        signal, sigma = (
            table(start).float()[:, None, None, None] for table in (self.schedule.signal, self.schedule.sigma)
        )
        if self.clip is not None:
            clean = ((x - sigma * noise) / signal).clamp(-self.clip, self.clip)
            noise = torch.where(sigma > 0, (x - signal * clean) / sigma.clamp(min=1e-12), noise)
        of_x, of_noise, fresh = (
            c.float()[:, None, None, None] for c in self.schedule.reverse_coefficients(start, stop)
        )
        stepped = of_x * x + of_noise * noise + fresh * torch.randn_like(x)
        return torch.where(mask[:, None, None, None], stepped, x)
