"""One periodic U-Net for all tasks. It maps frames to frames, with or without noise levels.

A network with level heads estimates the noise level of every output frame from the encoder's features; the encoder does
not see any level. The softmax of the heads is embedded and conditions the decoder (paper, section 4). A
level-conditioned network has no heads: it takes the levels as an input and embeds them in the same way. A network may
also take any vector of numbers as an input, which modulates every block, those of the encoder too: noise, a time, a
step.

All padding is circular, in the upsampling too. Nothing is normalised, so that the heads can see amplitudes.

Kernels, patches and the halving of stages act along the axes of a frame that have more than one point. The network of a
single row of points, (B, F, C, 1, N), is a network in one dimension.
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import nn

from sns_core.catalogue import ATTENTION_HEADS
from sns_core.grids import Grid, grid_shape, per_axis

HEAD_FEATURES = ("bottleneck_grid", "bottleneck", "encoder")


def _padded(x: torch.Tensor, margin: tuple[int, int]) -> torch.Tensor:
    """Return x (B, C, H, W) with circular padding by `margin` = (along y, along x)."""
    rows, columns = margin
    return F.pad(x, (columns, columns, rows, rows), mode="circular")


class _CircularPad(torch.autograd.Function):
    """Circular padding of (B, C, H, W) by `margin` = (along y, along x), with a backward pass of few copies.

    Torch's circular padding records every slice that it writes, and its backward pass makes a zeroed copy of the whole
    tensor for each slice. That takes a sixth of a training step. This backward pass adds the same numbers in the same
    order, so the result has the same bits.
    """

    @staticmethod
    def forward(context, x, margin):
        context.margin = margin
        return _padded(x, margin)

    @staticmethod
    def backward(context, gradient):
        for axis, margin in zip((2, 3), context.margin, strict=True):
            if margin:
                size = gradient.shape[axis] - 2 * margin
                inner = gradient.narrow(axis, margin, size).clone()
                inner.narrow(axis, 0, margin).add_(gradient.narrow(axis, size + margin, margin))
                inner.narrow(axis, size - margin, margin).add_(gradient.narrow(axis, 0, margin))
                gradient = inner
        return gradient, None


def fold(fields: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Fold patches of fields (B, C, H, W) into channels, (B, C * p * q, H / p, W / q) for patches of p x q points."""
    if patch[0] == patch[1]:
        return F.pixel_unshuffle(fields, patch[0])
    batch, channels, height, width = fields.shape
    parts = fields.reshape(batch, channels, height // patch[0], patch[0], width // patch[1], patch[1])
    return parts.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def unfold(features: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Return the fields (B, C, H, W) whose `fold` is (B, C * p * q, H / p, W / q)."""
    if patch[0] == patch[1]:
        return F.pixel_shuffle(features, patch[0])
    return features.unflatten(1, (-1, *patch)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


class PeriodicConv2d(nn.Conv2d):
    """Convolution on a torus: the output at a shifted input is the shifted output (for stride 1).

    `kernel` and `stride`: points along both axes, or along (y, x).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int | tuple[int, int] = 1):
        super().__init__(inputs, outputs, kernel, stride=stride)
        self.margin = tuple(points // 2 for points in self.kernel_size)

    def forward(self, x):
        """Return the convolution (B, C', H', W') of x (B, C, H, W)."""
        if torch.compiler.is_compiling():
            # Compiled code for written slices, and for indices with a remainder, computes one number at a time.
            # Compiled concatenations are vectorised.
            for axis, margin in zip((2, 3), self.margin, strict=True):
                if margin:
                    ends = x.narrow(axis, x.shape[axis] - margin, margin), x.narrow(axis, 0, margin)
                    x = torch.cat([ends[0], x, ends[1]], axis)
        elif any(self.margin):
            # A function with a backward pass of its own costs as much as the padding itself.
            x = _CircularPad.apply(x, self.margin) if torch.is_grad_enabled() else _padded(x, self.margin)
        return super().forward(x)


class Block(nn.Module):
    """Residual block of two convolutions.

    A condition of `condition` features, if any, scales and shifts the features between the convolutions. `kernel`:
    points of the kernels, as in PeriodicConv2d.
    """

    def __init__(self, inputs: int, outputs: int, condition: int = 0, kernel: int | tuple[int, int] = 3):
        super().__init__()
        self.first = PeriodicConv2d(inputs, outputs, kernel)
        self.second = PeriodicConv2d(outputs, outputs, kernel)
        self.skip = PeriodicConv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.modulation = nn.Linear(condition, 2 * outputs) if condition else None
        # The second convolution starts at zero, so that the block starts as the identity (or as a projection, where the
        # width changes). Deep stacks of such blocks train without normalisation.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x, condition=None):
        """Return (B, outputs, H, W) for x (B, inputs, H, W) and, for a block with a condition, its features (B, n)."""
        h = self.first(F.gelu(x))
        if self.modulation is not None:
            scale, shift = self.modulation(condition)[:, :, None, None].to(h.dtype).chunk(2, 1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.second(F.gelu(h))


class Attention(nn.Module):
    """Self-attention over all positions. The weights are normalised over the keys."""

    def __init__(self, width: int, heads: int = ATTENTION_HEADS):
        super().__init__()
        if width % heads:
            raise ValueError(f"attention over {width} channels: width times the last multiplier must divide by {heads}")
        self.heads = heads
        self.project_in = nn.Conv2d(width, 3 * width, 1)
        self.project_out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, x):
        """Return x (B, C, H, W) plus the mixture of values that each position attends to."""
        batch, width, height, breadth = x.shape
        shape = (batch, 3, self.heads, width // self.heads, height * breadth)
        query, key, value = self.project_in(x).reshape(shape).transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.project_out(mixed.transpose(-1, -2).reshape(batch, width, height, breadth))


class LevelHeads(nn.Module):
    """One classifier per output frame over the `classes` = S + 1 levels.

    The classifiers see pooled features, the mean and the logarithm of the power of every channel. With `grid`, the
    points (H, W) of the features, they see every place instead: a convolution with `kernel` reduces the features of one
    stage to CHANNELS channels, which are flattened (as in the paper's code), so that the estimate depends on where the
    torus is disturbed. With `kind` "categorical", each level has its own logit (as in the paper). With "ordinal", the
    distribution over levels is a mixture of COMPONENTS discretised logistic distributions. Neighbouring levels then
    share what they learn, and a frame unlike all training frames moves the estimate along the scale, instead of to an
    arbitrary class.
    """

    COMPONENTS = 3
    CHANNELS = 16

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: int,
        kind: str = "categorical",
        frames: int = 2,
        grid: tuple[int, int] | None = None,
        kernel: int | tuple[int, int] = 3,
    ):
        super().__init__()
        if kind not in ("categorical", "ordinal"):
            raise ValueError(f"head_kind {kind!r} is neither 'categorical' nor 'ordinal'")
        self.kind, self.classes, self.frames = kind, classes, frames
        self.reduce = self._reduction(features, kernel) if grid else None
        inputs = self.CHANNELS * grid[0] * grid[1] if grid else 2 * features
        self.trunk = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.classify = nn.Linear(hidden, frames * (classes if kind == "categorical" else 3 * self.COMPONENTS))

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return logits (B, frames, classes), float32, for a list of features (B, C_i, H_i, W_i)."""
        with torch.autocast(features[0].device.type, enabled=False):
            full = [f.float() for f in features]
            rows = self._pooled(full) if self.reduce is None else self.reduce(full[-1])
            if not torch.is_grad_enabled():
                # The order of the sums in a matrix product depends on the number of rows. Padding to a multiple of
                # eight rows makes the levels of a member independent of the size of the batch.
                rows = F.pad(rows, (0, 0, 0, -len(rows) % 8))
            output = self.classify(self.trunk(rows))[: len(full[0])].unflatten(1, (self.frames, -1))
            return output if self.kind == "categorical" else self._mixture(output)

    def _reduction(self, features: int, kernel: int | tuple[int, int]) -> nn.Sequential:
        """Build the layers that keep every place. They are built where they are used alone, because each layer draws
        its first weights, and a draw more would change the weights of every layer after it.
        """
        convolution, narrow = PeriodicConv2d(features, features, kernel), PeriodicConv2d(features, self.CHANNELS, 1)
        return nn.Sequential(convolution, nn.GELU(), narrow, nn.Flatten())

    @staticmethod
    def _pooled(features: list[torch.Tensor]) -> torch.Tensor:
        """Return the means and the logarithms of the powers of all channels, (B, 2 * sum of C_i)."""
        means = [f.mean((-2, -1)) for f in features]
        powers = [(f.square().mean((-2, -1)) + 1e-6).log() for f in features]
        return torch.cat(means + powers, 1)

    def _mixture(self, output: torch.Tensor) -> torch.Tensor:
        """Return normalised log-probabilities (B, F, classes) of mixtures with the parameters (B, F, 3 * COMPONENTS).

        The parameters are the weights, the centres and the logarithms of the widths of all components.
        """
        weight, centre, width = output.unsqueeze(-2).chunk(3, -1)
        spread = torch.linspace(0.1, 0.7, self.COMPONENTS, device=output.device)
        centre = (centre + spread) * self.classes
        scale = (width.clamp(-4, 4) - 2.5).exp() * self.classes
        level = torch.arange(self.classes, device=output.device, dtype=output.dtype)[:, None]
        u = (level - centre) / scale
        component = -u - 2 * F.softplus(-u)  # the logarithm of the logistic density, up to a constant
        return (weight.log_softmax(-1) + component.log_softmax(-2)).logsumexp(-1)


class PeriodicUNet(nn.Module):
    """U-Net on a torus for fields (B, F, C, H, W).

    `channels`: C. `frames_in`, `frames_out`: number of input and output frames. `width`: channels at the entrance.
    `multipliers`: channels of each stage as multiples of `width`; each stage has half the resolution of the one before.
    `blocks`: residual blocks per stage. `attention`: whether the bottleneck has self-attention. `patch`: patch x patch
    pixels are folded into channels at the entrance. `levels`: S, the noisiest of the levels that condition the decoder
    (None: no levels). `level_conditioned`: whether the levels are an input instead of an estimate of the heads.
    `head_features`: "bottleneck_grid" for every place of the bottleneck (the paper), "bottleneck" for its pooled
    features, or "encoder" for the pooled features of all encoder stages. `resolution`: of the frames, N or (H, W).
    Heads that see places need it, and fit no other frames; so does a single row of points (by default both axes have
    more than one). `head_kind`: as in LevelHeads. `head_width`: features of the heads' hidden layers and of the level
    embedding. `landmarks` (S, H, W): constant fields that the network sees beside the frames; without them, the network
    treats all places of the torus alike. `centred`: whether the decoder's last features have mean zero in each sample
    before they are activated; networks of older runs lack it, and may die in their first hundred training steps.
    `condition_features`: how many numbers per sample the network takes as an input that modulates every block (0:
    none).

    Raises ValueError for attention over channels that its heads do not divide, for levels beside `condition_features`,
    for unknown `head_features` or `head_kind`, and for heads that see places without a `resolution`.
    """

    def __init__(
        self,
        *,
        channels: int,
        frames_in: int,
        frames_out: int,
        width: int = 64,
        multipliers: tuple[int, ...] = (2, 2, 2),
        blocks: int = 2,
        attention: bool = True,
        patch: int = 1,
        levels: int | None = None,
        head_features: str = "bottleneck",
        head_kind: str = "categorical",
        head_width: int = 128,
        level_conditioned: bool = False,
        landmarks: torch.Tensor | None = None,
        centred: bool = False,
        resolution: Grid | None = None,
        condition_features: int = 0,
    ):
        super().__init__()
        if levels and condition_features:
            raise ValueError("a network takes noise levels or condition_features, not both")
        if head_features not in HEAD_FEATURES:
            raise ValueError(f"head_features {head_features!r} is none of {', '.join(HEAD_FEATURES)}")
        self.channels, self.frames_in, self.frames_out = channels, frames_in, frames_out
        self.levels, self.head_features, self.level_conditioned = levels, head_features, level_conditioned
        self.centred, self.condition_features = centred, condition_features
        self.divisor = patch * 2 ** (len(multipliers) - 1)
        grid = resolution or 2  # without a resolution, both axes have more than one point
        self.halving, kernel = per_axis(2, grid), per_axis(3, grid)
        self.patch = per_axis(patch, grid)
        widths = [width * m for m in multipliers]
        condition = head_width if levels else condition_features
        self.register_buffer("landmarks", landmarks)

        # Modules are made in the order of the forward pass: their random weights and the optimiser's state follow it.
        folded = math.prod(self.patch)
        constant_fields = 0 if landmarks is None else len(landmarks)
        self.enter = PeriodicConv2d((frames_in * channels + constant_fields) * folded, width, kernel)
        self._add_encoder(width, widths, blocks, kernel)
        self._add_bottleneck(widths[-1], attention, kernel)
        self.heads = None
        if levels:
            if not level_conditioned:
                self.heads = self._level_heads(width, widths, head_width, head_kind, frames_out, resolution, kernel)
            self.embed = nn.Sequential(
                nn.Linear(frames_out * (levels + 1), head_width),
                nn.GELU(),
                nn.Linear(head_width, head_width),
                nn.GELU(),
            )
        self.middle_out = Block(widths[-1], widths[-1], condition, kernel)
        self._add_decoder(widths, blocks, condition, kernel)
        self.leave = PeriodicConv2d(widths[0], frames_out * channels * folded, kernel)
        self._set_first_weights()

    def _add_encoder(self, width: int, widths: list[int], blocks: int, kernel: tuple[int, int]) -> None:
        """Add the encoder's stages, with `widths` features, and the halvings between them."""
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        for index, (before, size) in enumerate(zip([width, *widths], widths, strict=False)):
            inputs = [before, *[size] * (blocks - 1)]
            self.encoder.append(nn.ModuleList(Block(n, size, self.condition_features, kernel) for n in inputs))
            if index < len(widths) - 1:
                self.downs.append(PeriodicConv2d(size, size, kernel, self.halving))

    def _add_bottleneck(self, size: int, attention: bool, kernel: tuple[int, int]) -> None:
        """Add the part of the bottleneck that ends the encoder."""
        self.bottom_attention = Attention(size) if attention else nn.Identity()
        self.middle_in = Block(size, size, self.condition_features, kernel)
        self.middle_attention = Attention(size) if attention else nn.Identity()

    def _level_heads(
        self, width: int, widths: list[int], head_width: int, head_kind: str, frames_out: int, resolution, kernel
    ) -> LevelHeads:
        """Return the heads, which see the bottleneck or the features of all stages of the encoder."""
        features = widths[-1] + (width + sum(widths) if self.head_features == "encoder" else 0)
        places = self._bottleneck_grid(resolution) if self.head_features == "bottleneck_grid" else None
        return LevelHeads(features, self.levels + 1, head_width, head_kind, frames_out, places, kernel)

    def _add_decoder(self, widths: list[int], blocks: int, condition: int, kernel: tuple[int, int]) -> None:
        """Add the decoder's stages, from the bottleneck up; each sees the skip of the encoder's stage of its size."""
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        current = widths[-1]
        for index, size in reversed(list(enumerate(widths))):
            inputs = [current + size, *[size] * (blocks - 1)]
            self.decoder.append(nn.ModuleList(Block(n, size, condition, kernel) for n in inputs))
            current = size
            if index:
                self.ups.append(PeriodicConv2d(current, current, kernel))

    def _set_first_weights(self) -> None:
        """Set to zero the weights with which the network begins as the zero function of its frames and its condition.

        Noise as a condition that scaled the features of all blocks from the first step on would bury the frames: an
        emulator trained with the CRPS did not learn at all.
        """
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        if self.condition_features:
            for module in self.modules():
                if isinstance(module, Block):
                    nn.init.zeros_(module.modulation.weight)
                    nn.init.zeros_(module.modulation.bias)

    def check_resolution(self, resolution: Grid) -> None:
        """Raise ValueError where the network cannot halve frames of a grid as often as it must, or was made for another
        kind of grid, a single row or several.
        """
        divisors = per_axis(self.divisor, self.halving)
        if per_axis(2, resolution) != self.halving or any(map(operator.mod, grid_shape(resolution), divisors)):
            raise ValueError(
                f"this network cannot halve a resolution of {resolution}: it must divide by {self.divisor}"
            )

    def _bottleneck_grid(self, resolution: Grid | None) -> tuple[int, int]:
        """Return the points (H, W) of the bottleneck. Raise ValueError without a resolution."""
        if resolution is None:
            raise ValueError("heads that see places ('bottleneck_grid') need the resolution of the frames")
        self.check_resolution(resolution)
        return tuple(map(operator.floordiv, grid_shape(resolution), per_axis(self.divisor, resolution)))

    def encode(
        self, frames: torch.Tensor, condition: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor | None]:
        """Run the encoder on frames (B, F, C, H, W).

        `condition` (B, condition_features): the input of a network that takes one.

        Returns the skips, the bottleneck features, and the logits (B, F_out, S + 1), or None for a network without
        heads.
        """
        self.check_resolution(frames.shape[-2:])
        fields = frames.flatten(1, 2)
        if self.landmarks is not None:
            fields = torch.cat([fields, self.landmarks.to(fields.dtype).expand(len(fields), -1, -1, -1)], 1)
        h = self.enter(fold(fields, self.patch))
        entrance, skips = h, []
        for index, stage in enumerate(self.encoder):
            for block in stage:
                h = block(h, condition)
            skips.append(h)
            if index < len(self.downs):
                h = self.downs[index](h)
        h = self.middle_attention(self.middle_in(self.bottom_attention(h), condition))
        if self.heads is None:
            return skips, h, None
        return skips, h, self.heads([entrance, *skips, h] if self.head_features == "encoder" else [h])

    def decode(
        self,
        skips: list[torch.Tensor],
        h: torch.Tensor,
        probabilities: torch.Tensor | None,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the output frames (B, F_out, C, H, W) for the features that `encode` returns.

        `probabilities` (B, F_out, S + 1) of the levels condition the decoder; None for a network without levels.
        `condition` as in `encode`.
        """
        condition = condition if probabilities is None else self.embed(probabilities.flatten(1))
        h = self.middle_out(h, condition)
        for index, (stage, skip) in enumerate(zip(self.decoder, reversed(skips), strict=True)):
            h = torch.cat([h, skip], 1)
            for block in stage:
                h = block(h, condition)
            if index < len(self.ups):
                h = self.ups[index](F.interpolate(h, scale_factor=self.halving, mode="nearest"))
        if self.centred:
            # Before the network has learnt anything, a small output costs least, and a step of the optimiser may push
            # all last features below zero, where the activation has no gradient.
            h = h - h.mean((1, 2, 3), keepdim=True)
        return unfold(self.leave(F.gelu(h)), self.patch).unflatten(1, (self.frames_out, self.channels))

    def forward(
        self, frames: torch.Tensor, levels: torch.Tensor | None = None, condition: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the output frames (B, F_out, C, H, W) for frames (B, F, C, H, W), and the logits (B, F_out, S + 1) or
        None.

        `levels` (B, F_out) int64 are the input of a level-conditioned network, `condition` (B, condition_features) that
        of a network with `condition_features`. Raises ValueError where they are missing.
        """
        if self.condition_features and condition is None:
            raise ValueError(f"this network takes {self.condition_features} numbers per sample; pass them as condition")
        skips, bottom, logits = self.encode(frames, condition)
        if self.level_conditioned and levels is None:
            raise ValueError("this network takes the noise levels as an input; pass them as levels")
        probabilities = None if logits is None else logits.softmax(-1)
        if self.level_conditioned:
            probabilities = self.one_hot(levels, bottom)
        return self.decode(skips, bottom, probabilities, condition), logits

    def one_hot(self, levels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return the known levels (B, F_out) as probabilities (B, F_out, S + 1), with the type of `like`."""
        return F.one_hot(levels, self.levels + 1).to(like)
