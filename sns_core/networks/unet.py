"""One periodic U-Net for every task: frames in, frames out, with optional noise levels, estimated or told.

The encoder is told no noise level. Where heads are asked for, they classify the level of every frame that is given out
(for the pair: of the previous and of the next one) from the encoder's features, and their softmax, embedded, conditions
the decoder (paper, section 4). A network that is told the levels instead has the same embedding and no heads. Padding
is circular everywhere, upsampling included, and nothing is normalised, so amplitudes stay visible to the heads.
"""

import torch
import torch.nn.functional as F
from torch import nn


class _CircularPad(torch.autograd.Function):
    """Circular padding of both axes of (B, C, H, W) by `margin`, with a backward pass of six copies.

    Torch's own records each of the slices that it writes, and goes back through them one by one with a zeroed copy of the
    whole each time: a sixth of a training step. The sums are the same, in the same order, to the last bit.
    """

    @staticmethod
    def forward(context, x, margin):
        context.margin = margin
        return F.pad(x, (margin,) * 4, mode="circular")

    @staticmethod
    def backward(context, gradient):
        m = context.margin
        rows = gradient[:, :, m:-m].clone()
        rows[:, :, :m] += gradient[:, :, -m:]
        rows[:, :, -m:] += gradient[:, :, :m]
        result = rows[..., m:-m].clone()
        result[..., :m] += rows[..., -m:]
        result[..., -m:] += rows[..., :m]
        return result, None


class PeriodicConv2d(nn.Conv2d):
    """Convolution on a torus: the output at a shifted input is the shifted output (for stride 1)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1):
        super().__init__(inputs, outputs, kernel, stride=stride)
        self.margin = kernel // 2

    def forward(self, x):
        if self.margin and torch.compiler.is_compiling():
            # Compiled code for slices that are written, and for a remainder as an index, does one number at a time.
            for axis in (2, 3):
                size = x.shape[axis]
                ends = x.narrow(axis, size - self.margin, self.margin), x.narrow(axis, 0, self.margin)
                x = torch.cat([ends[0], x, ends[1]], axis)
        elif self.margin:
            x = _CircularPad.apply(x, self.margin)
        return super().forward(x)


class Block(nn.Module):
    """Residual block of two convolutions; `condition` features, where given, scale and shift the middle."""

    def __init__(self, inputs: int, outputs: int, condition: int = 0):
        super().__init__()
        self.first = PeriodicConv2d(inputs, outputs)
        self.second = PeriodicConv2d(outputs, outputs)
        self.skip = PeriodicConv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.modulation = nn.Linear(condition, 2 * outputs) if condition else None
        # Starts as the identity (a projection where the width changes): deep stacks without norms train from there.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x, condition=None):
        h = self.first(F.gelu(x))
        if self.modulation is not None:
            scale, shift = self.modulation(condition)[:, :, None, None].to(h.dtype).chunk(2, 1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.second(F.gelu(h))


class Attention(nn.Module):
    """Self-attention over all positions, the weights normalised over the keys."""

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.project_in = nn.Conv2d(width, 3 * width, 1)
        self.project_out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, x):
        batch, width, height, breadth = x.shape
        shape = (batch, 3, self.heads, width // self.heads, height * breadth)
        query, key, value = self.project_in(x).reshape(shape).transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.project_out(mixed.transpose(-1, -2).reshape(batch, width, height, breadth))


class LevelHeads(nn.Module):
    """A classifier a frame over S + 1 levels, from pooled features: the mean and the log-power of every channel.

    `kind` "categorical" gives every level a logit of its own (the paper). "ordinal" describes the distribution over
    levels as a mixture of COMPONENTS discretised logistics: neighbouring levels share what is learnt, and frames
    unlike any in training move the estimate along the scale instead of picking an arbitrary class.
    """

    COMPONENTS = 3

    def __init__(self, features: int, classes: int, hidden: int, kind: str = "categorical", frames: int = 2):
        super().__init__()
        if kind not in ("categorical", "ordinal"):
            raise ValueError(f"head_kind {kind!r} is neither 'categorical' nor 'ordinal'")
        self.kind, self.classes, self.frames = kind, classes, frames
        self.trunk = nn.Sequential(nn.Linear(2 * features, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.classify = nn.Linear(hidden, frames * (classes if kind == "categorical" else 3 * self.COMPONENTS))

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """List of (B, C_i, H_i, W_i) -> logits (B, frames, classes) in float32."""
        with torch.autocast(features[0].device.type, enabled=False):
            wide = [f.float() for f in features]
            pooled = [f.mean((-2, -1)) for f in wide] + [(f.square().mean((-2, -1)) + 1e-6).log() for f in wide]
            rows = torch.cat(pooled, 1)
            if not torch.is_grad_enabled():
                # Matrix products of few rows sum in another order: without this a member's levels would depend on the
                # number of its companions.
                rows = F.pad(rows, (0, 0, 0, -len(rows) % 8))
            output = self.classify(self.trunk(rows))[: len(wide[0])].unflatten(1, (self.frames, -1))
            return output if self.kind == "categorical" else self._mixture(output)

    def _mixture(self, output: torch.Tensor) -> torch.Tensor:
        """(B, F, 3 * COMPONENTS) weights, centres and log-widths -> normalised log-probabilities (B, F, classes)."""
        weight, centre, width = output.unsqueeze(-2).chunk(3, -1)
        spread = torch.linspace(0.1, 0.7, self.COMPONENTS, device=output.device)
        centre = (centre + spread) * self.classes
        scale = (width.clamp(-4, 4) - 2.5).exp() * self.classes
        level = torch.arange(self.classes, device=output.device, dtype=output.dtype)[:, None]
        u = (level - centre) / scale
        component = -u - 2 * F.softplus(-u)  # logarithm of the logistic density, up to its constant
        return (weight.log_softmax(-1) + component.log_softmax(-2)).logsumexp(-1)


class PeriodicUNet(nn.Module):
    """U-Net on a torus for fields (B, F, C, H, W).

    Parameters: `channels` C; `frames_in`, `frames_out`; `width` of the first level and `multipliers` of it, one a
    level, each level half as fine; `blocks` a level; `attention` at the bottom and in the middle; `patch`, pixels
    (patch x patch) folded into channels at the entrance; `levels`, S of the noise levels that condition the decoder
    (None: no levels); `told`, whether they are given with each call instead of read by heads; `head_features`
    "bottleneck" (the paper) or "encoder" (every encoder stage as well); `head_kind` as in LevelHeads; `landmarks`
    (S, H, W), fields that it sees beside the frames of every call. Without them it treats every place of the torus alike.
    """

    def __init__(
        self, *, channels: int, frames_in: int, frames_out: int, width: int = 64, multipliers: tuple[int, ...] = (2, 2, 2),
        blocks: int = 2, attention: bool = True, patch: int = 1, levels: int | None = None, head_features: str = "bottleneck",
        head_kind: str = "categorical", head_width: int = 128, level_conditioned: bool = False,
        landmarks: torch.Tensor | None = None,
    ):  # fmt: skip
        super().__init__()
        if head_features not in ("bottleneck", "encoder"):
            raise ValueError(f"head_features {head_features!r} is neither 'bottleneck' nor 'encoder'")
        self.channels, self.frames_in, self.frames_out, self.patch = channels, frames_in, frames_out, patch
        self.levels, self.head_features, self.level_conditioned = levels, head_features, level_conditioned
        self.divisor = patch * 2 ** (len(multipliers) - 1)
        widths = [width * m for m in multipliers]
        condition = head_width if levels else 0
        self.register_buffer("landmarks", landmarks)

        still = 0 if landmarks is None else len(landmarks)
        self.enter = PeriodicConv2d((frames_in * channels + still) * patch**2, width)
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        current = width
        for index, size in enumerate(widths):
            self.encoder.append(nn.ModuleList(Block(current if i == 0 else size, size) for i in range(blocks)))
            current = size
            if index < len(widths) - 1:
                self.downs.append(PeriodicConv2d(current, current, stride=2))
        self.bottom_attention = Attention(current) if attention else nn.Identity()
        self.middle_in = Block(current, current)
        self.middle_attention = Attention(current) if attention else nn.Identity()
        self.heads = None
        if levels:
            pooled = current if head_features == "bottleneck" else current + width + sum(widths)
            if not level_conditioned:
                self.heads = LevelHeads(pooled, levels + 1, head_width, head_kind, frames_out)
            self.embed = nn.Sequential(
                nn.Linear(frames_out * (levels + 1), head_width),
                nn.GELU(),
                nn.Linear(head_width, head_width),
                nn.GELU(),
            )
        self.middle_out = Block(current, current, condition)
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        for index, size in reversed(list(enumerate(widths))):
            inputs = [current + size, *[size] * (blocks - 1)]
            self.decoder.append(nn.ModuleList(Block(n, size, condition) for n in inputs))
            current = size
            if index:
                self.ups.append(PeriodicConv2d(current, current))
        self.leave = PeriodicConv2d(current, frames_out * channels * patch**2)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def check_resolution(self, resolution: int) -> None:
        """ValueError where the network cannot halve frames of resolution x resolution."""
        if resolution % self.divisor:
            raise ValueError(
                f"a resolution of {resolution} cannot be halved by this network: it must divide by {self.divisor}"
            )

    def encode(self, frames: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor | None]:
        """Frames (B, F, C, H, W) -> skips, bottleneck features, logits (B, F_out, S + 1) or None."""
        self.check_resolution(frames.shape[-1])
        seen = frames.flatten(1, 2)
        if self.landmarks is not None:
            seen = torch.cat([seen, self.landmarks.to(seen.dtype).expand(len(seen), -1, -1, -1)], 1)
        h = self.enter(F.pixel_unshuffle(seen, self.patch))
        entrance, skips = h, []
        for index, stage in enumerate(self.encoder):
            for block in stage:
                h = block(h)
            skips.append(h)
            if index < len(self.downs):
                h = self.downs[index](h)
        h = self.middle_attention(self.middle_in(self.bottom_attention(h)))
        if self.heads is None:
            return skips, h, None
        return skips, h, self.heads([h] if self.head_features == "bottleneck" else [entrance, *skips, h])

    def decode(self, skips: list[torch.Tensor], h: torch.Tensor, probabilities: torch.Tensor | None) -> torch.Tensor:
        """Features as `encode` gives them, and the probability of each level (B, F_out, S + 1) -> (B, F_out, C, H, W)."""
        condition = None if probabilities is None else self.embed(probabilities.flatten(1))
        h = self.middle_out(h, condition)
        for index, (stage, skip) in enumerate(zip(self.decoder, reversed(skips), strict=True)):
            h = torch.cat([h, skip], 1)
            for block in stage:
                h = block(h, condition)
            if index < len(self.ups):
                h = self.ups[index](F.interpolate(h, scale_factor=2, mode="nearest"))
        return F.pixel_shuffle(self.leave(F.gelu(h)), self.patch).unflatten(1, (self.frames_out, self.channels))

    def forward(
        self, frames: torch.Tensor, levels: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Frames (B, F, C, H, W) -> output (B, F_out, C, H, W) and logits (B, F_out, S + 1) or None.

        `levels`: (B, F_out) int64, for a network that is told them; ValueError where it is not given.
        """
        skips, bottom, logits = self.encode(frames)
        if self.level_conditioned and levels is None:
            raise ValueError("this network is told the noise levels; give them")
        probabilities = None if logits is None else logits.softmax(-1)
        return self.decode(
            skips, bottom, self.certain(levels, bottom) if self.level_conditioned else probabilities
        ), logits

    def certain(self, levels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, F_out, S + 1) of levels (B, F_out) that are known."""
        return F.one_hot(levels, self.levels + 1).to(like)
