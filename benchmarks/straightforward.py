"""Training and rollout written as one would at first: what the project's own are measured against.

Float32, one network call for every question (each head is read by a pass of its own, each frame denoised by a call of its
own), every member computed at every level and the result picked by a mask, averages and optimiser parameter by parameter,
batches through a DataLoader on the host, everything kept.
"""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset):
    """(anchor, previous, next) of trajectories (members, times, C, N, N)."""

    def __init__(self, frames: torch.Tensor, gap: int):
        self.frames, self.gap = frames, gap

    def __len__(self) -> int:
        return len(self.frames) * (self.frames.shape[1] - 1)

    def __getitem__(self, index: int) -> torch.Tensor:
        member, time = divmod(index, self.frames.shape[1] - 1)
        far = (time + self.gap) % self.frames.shape[1]
        return torch.stack([self.frames[member, far], self.frames[member, time], self.frames[member, time + 1]])


def train(network, frames, gap, colour, schedule, batch, level_weight, passes, steps):
    """`passes` of the encoder a step: 3 reads each head by a pass of its own, 1 takes what the denoising pass gives anyway."""
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
        output, logits = network(pair)
        loss = F.mse_loss(output, torch.stack(noises, 1))
        for head, level in enumerate(levels):
            read = logits if passes == 1 else network.encode(pair)[2]
            loss = loss + level_weight * F.cross_entropy(read[:, head], level)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        for name, parameter in network.named_parameters():
            average[name].mul_(0.998).add_(parameter.detach(), alpha=0.002)
        losses.append(loss.item())
    return losses


class Rollout:
    """Refinement along path A with a move a level, or (`joint`) along the diagonal from the higher of both levels, at most
    `bound`, in one move. `surrogate` and `denoiser`: networks; `readout` maps logits (B, 2, S + 1) to levels."""

    def __init__(
        self, surrogate, denoiser, increment_std, colour, schedule, readout, bound, clip, renoise, joint, gain
    ):
        self.surrogate, self.denoiser, self.increment_std = surrogate, denoiser, increment_std
        self.colour, self.schedule, self.readout, self.bound, self.clip = colour, schedule, readout, bound, clip
        self.renoise, self.joint, self.gain, self.kept = renoise, joint, gain, []

    @torch.no_grad()
    def step(self, previous, anchor):
        candidate = previous + self.increment_std * self.surrogate(previous[:, None])[0][:, 0]
        z_anchor, z_prev, z_next = (self.colour.whiten(frame) for frame in (anchor, previous, candidate))
        pair = torch.stack([z_anchor, z_prev, z_next], 1)
        s_prev = self.readout(self.denoiser.encode(pair)[2])[:, 0]
        s_next = self.readout(self.denoiser.encode(pair)[2])[:, 1]
        if self.bound is not None:
            s_prev, s_next = s_prev.clamp(max=self.bound), s_next.clamp(max=self.bound)
        if self.joint:
            s_prev = s_next = torch.maximum(s_prev, s_next)
        z_prev, z_next = self.placed(z_prev, s_prev), self.placed(z_next, s_next)
        if self.joint:
            _, z_next = (
                self.moved(z_anchor, z_prev, z_next, 0, s_prev, torch.zeros_like(s_prev)),
                self.moved(z_anchor, z_prev, z_next, 1, s_next, torch.zeros_like(s_next)),
            )
        else:
            for level in range(int(s_prev.max()), 0, -1):
                if (mask := s_prev >= level).any():
                    here = torch.where(mask, level, 1)
                    moved = self.moved(z_anchor, z_prev, z_next, 0, here, here - 1)
                    z_prev = torch.where(mask[:, None, None, None], moved, z_prev)
            for level in range(int(s_next.max()), 0, -1):
                if (mask := s_next >= level).any():
                    here = torch.where(mask, level, 1)
                    moved = self.moved(z_anchor, z_prev, z_next, 1, here, here - 1)
                    z_next = torch.where(mask[:, None, None, None], moved, z_next)
        refined = torch.where((s_next > 0)[:, None, None, None], self.colour.unwhiten(z_next), candidate)
        if self.gain is not None:
            change = torch.fft.rfft2(refined - candidate) * self.gain
            refined = candidate + torch.fft.irfft2(change, s=refined.shape[-2:])
        self.kept.append((candidate, refined, s_prev, s_next, z_prev, z_next))
        return refined

    def placed(self, z, level):
        if self.renoise:
            return self.schedule.add_noise(z, level, torch.randn_like(z))
        return self.schedule.add_noise(z, level, torch.zeros_like(z))

    def moved(self, z_anchor, z_prev, z_next, side, start, stop):
        """One frame after a reverse step, every member computed."""
        x = (z_prev, z_next)[side]
        noise = self.denoiser(torch.stack([z_anchor, z_prev, z_next], 1))[0][:, side]
        signal, sigma = (
            table(start).float()[:, None, None, None] for table in (self.schedule.signal, self.schedule.sigma)
        )
        if self.clip is not None:
            clean = ((x - sigma * noise) / signal).clamp(-self.clip, self.clip)
            noise = torch.where(sigma > 0, (x - signal * clean) / sigma.clamp(min=1e-12), noise)
        of_x, of_noise, fresh = (
            c.float()[:, None, None, None] for c in self.schedule.reverse_coefficients(start, stop)
        )
        return of_x * x + of_noise * noise + fresh * torch.randn_like(x)
