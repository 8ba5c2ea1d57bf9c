"""The periodic U-Net (equivariance, attention, heads, shapes) and the denoiser around it."""

import pytest
import torch
import torch.nn.functional as F

from sns_core.device import can_compile
from sns_core.diffusion import NoiseSchedule, Prediction
from sns_core.networks import NetworkDenoiser, PeriodicUNet
from sns_core.networks.unet import Attention, LevelHeads, PeriodicConv2d, _CircularPad
from sns_core.streams import generator
from sns_core.training import TrainedModel

F64 = torch.float64
SMALL = dict(channels=1, frames_in=2, frames_out=2, width=8, multipliers=(1, 2), blocks=1)
PUBLISHED = dict(width=64, multipliers=(2, 2, 2), blocks=2, attention=True)


def randomised(module: torch.nn.Module, gain: float = 1.0) -> torch.nn.Module:
    """Draw every parameter anew, because layers that start at zero would hide the layers behind them."""
    g = generator("test", "parameters")
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        with torch.no_grad():
            parameter.copy_(gain * torch.randn(parameter.shape, generator=g, dtype=F64) / fan**0.5)
    return module


def network_of(**changes) -> PeriodicUNet:
    return randomised(PeriodicUNet(**{**SMALL, **changes})).eval()


def in_double(network: PeriodicUNet) -> PeriodicUNet:
    """Convert to float64, except for the heads and the modulation, which are written for float32."""
    network.double()
    for name, module in network.named_modules():
        if name in ("heads", "embed") or name.endswith("modulation"):
            module.float()
    return network


def frames_of(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=generator("test", "frames"), dtype=dtype)


# --- equivariance ----------------------------------------------------------------------------------------------------


def test_landmarks_give_a_network_its_position():
    still = frames_of(1, 8, 8)
    plain, located = network_of(), network_of(landmarks=still)
    x, shift = frames_of(3, 2, 1, 8, 8), (2, 4)
    for network, commutes in ((plain, True), (located, False)):
        moved = network(x.roll(shift, (-2, -1)))[0] - network(x)[0].roll(shift, (-2, -1))
        assert (moved.abs().max() < 1e-5) == commutes
    relocated = network_of(landmarks=still.roll(shift, (-2, -1)))
    relocated.load_state_dict({**located.state_dict(), "landmarks": relocated.landmarks})
    torch.testing.assert_close(relocated(x.roll(shift, (-2, -1)))[0], located(x)[0].roll(shift, (-2, -1)))


@pytest.mark.parametrize("shift", [(1, 0), (0, 3), (-2, 5)])
def test_a_periodic_convolution_commutes_with_shifts_and_sees_across_the_border(shift):
    conv = randomised(PeriodicConv2d(2, 3)).double()
    x = frames_of(1, 2, 8, 8, dtype=F64)
    torch.testing.assert_close(conv(x.roll(shift, (-2, -1))), conv(x).roll(shift, (-2, -1)), rtol=1e-12, atol=1e-12)
    # The convolution as a sum of rolls: output(i) = sum over offsets of weight(offset) input(i + offset), on the circle.
    expected = conv.bias.reshape(1, -1, 1, 1)
    for row in range(3):
        for column in range(3):
            shifted = x.roll((1 - row, 1 - column), (-2, -1))
            expected = expected + torch.einsum("oi,bihw->bohw", conv.weight[:, :, row, column], shifted)
    torch.testing.assert_close(conv(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        dict(attention=False),
        dict(attention=True),
        dict(attention=True, patch=2),
        dict(attention=True, multipliers=(2, 1, 1), blocks=2),
        dict(attention=False, multipliers=(1,), patch=4),
    ],
    ids=["convolutions", "attention", "patch", "three levels", "one level"],
)
def test_the_network_commutes_with_shifts_by_its_divisor(changes):
    network = network_of(**changes).double()
    step, x = network.divisor, frames_of(2, 2, 1, 24, 24, dtype=F64)
    with torch.no_grad():
        output, _ = network(x)
        # Amplitudes grow from layer to layer, so the tolerance is relative to the size of the output.
        size = output.abs().max().item()
        assert output.std() > 0.01 * size  # a constant output would pass the next test
        for shift in ((step, 0), (0, -step), (3 * step, 2 * step)):
            moved, _ = network(x.roll(shift, (-2, -1)))
            torch.testing.assert_close(moved, output.roll(shift, (-2, -1)), rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("head_features", ["bottleneck", "encoder"])
def test_the_heads_do_not_see_a_shift_and_the_conditioned_decoder_moves_with_it(head_features):
    network = in_double(network_of(attention=True, levels=12, head_features=head_features))
    x = frames_of(2, 2, 1, 16, 16, dtype=F64)
    with torch.no_grad():
        output, logits = network(x)
        moved, same_logits = network(x.roll((6, -4), (-2, -1)))
    # The heads pool in float32, whose rounding depends on the order of the pixels.
    torch.testing.assert_close(same_logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved, output.roll((6, -4), (-2, -1)), rtol=0, atol=1e-4 * output.abs().max().item())
    assert output.std() > 0.01 * output.abs().max() and logits.std() > 0.01


def test_attention_whose_heads_do_not_divide_its_channels_is_refused():
    with pytest.raises(ValueError, match=r"attention over 6 channels: .* must divide by 4"):
        network_of(attention=True, width=6, multipliers=(2, 1))


@pytest.mark.parametrize("attention", [False, True])
def test_heads_that_see_every_place_notice_a_shift_of_the_features(attention):
    network = in_double(network_of(attention=attention, levels=12, head_features="bottleneck_grid", resolution=16))
    x = frames_of(2, 2, 1, 16, 16, dtype=F64)
    with torch.no_grad():
        _, bottom, logits = network.encode(x)
        _, moved_bottom, moved_logits = network.encode(x.roll((4, 4), (-2, -1)))
    torch.testing.assert_close(moved_bottom, bottom.roll((2, 2), (-2, -1)), rtol=0, atol=1e-9)
    assert (moved_logits - logits).abs().max() > 0.1 * logits.std()
    with pytest.raises(ValueError, match=r"'bottleneck_grid'.*need the resolution"):
        network_of(levels=4, head_features="bottleneck_grid")
    with pytest.raises(ValueError, match="cannot halve a resolution of 15"):
        network_of(levels=4, head_features="bottleneck_grid", resolution=15)


def test_the_decoder_carries_a_signal_across_the_border():
    """Nearest upsampling and a padded convolution are the most likely place to lose periodicity."""
    network = network_of(attention=False, multipliers=(1, 1, 1)).double()
    with torch.no_grad():
        skips, bottom, _ = network.encode(torch.zeros(1, 2, 1, 32, 32, dtype=F64))
        skips = [torch.zeros_like(skip) for skip in skips]
        centre, corner = torch.zeros_like(bottom), torch.zeros_like(bottom)
        centre[..., 4, 4], corner[..., 0, 0] = 1.0, 1.0
        quiet, central, wrapped = (network.decode(skips, h, None) for h in (torch.zeros_like(bottom), centre, corner))
    size = central.abs().max().item()
    torch.testing.assert_close(wrapped, central.roll((-16, -16), (-2, -1)), rtol=0, atol=1e-12 * size)
    assert (wrapped - quiet)[..., -1, -1].abs().max() > 1e-3 * size  # the signal reaches the opposite corner


# --- attention -------------------------------------------------------------------------------------------------------


def attention_by_hand(attention: Attention, x: torch.Tensor, normalised_over: str) -> torch.Tensor:
    batch, width, height, breadth = x.shape
    mixed = torch.empty_like(x).flatten(2)
    weight, bias = attention.project_in.weight[:, :, 0, 0], attention.project_in.bias
    for member in range(batch):
        projected = weight @ x[member].flatten(1) + bias[:, None]
        each = width // attention.heads
        for head in range(attention.heads):
            query, key, value = (projected[part * width + head * each :][:each] for part in range(3))
            products = torch.einsum("cq,ck->qk", query, key) / each**0.5
            weights = products.exp()
            weights = weights / weights.sum(1 if normalised_over == "keys" else 0, keepdim=True)
            mixed[member, head * each : (head + 1) * each] = torch.einsum("qk,ck->cq", weights, value)
    out = attention.project_out
    mixed = torch.einsum("oi,bip->bop", out.weight[:, :, 0, 0], mixed) + out.bias[:, None]
    return x + mixed.reshape(batch, width, height, breadth)


def test_attention_is_a_softmax_over_the_keys():
    attention = randomised(Attention(8, heads=2)).double()
    x = frames_of(2, 8, 3, 4, dtype=F64)
    with torch.no_grad():
        output = attention(x)
        torch.testing.assert_close(output, attention_by_hand(attention, x, "keys"), rtol=1e-11, atol=1e-11)
        assert not torch.allclose(output, attention_by_hand(attention, x, "queries"), atol=1e-3)


def test_attention_to_equal_values_returns_that_value():
    attention = randomised(Attention(8)).double()
    with torch.no_grad():
        attention.project_in.weight[16:] = 0.0  # every position now has the same value, queries and keys still differ
        x = frames_of(1, 8, 4, 4, dtype=F64)
        value = attention.project_in.bias[16:]
        expected = attention.project_out.weight[:, :, 0, 0] @ value + attention.project_out.bias
        torch.testing.assert_close(attention(x) - x, expected.reshape(1, 8, 1, 1).expand_as(x), rtol=1e-11, atol=1e-11)


# --- shapes and heads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "frames_in", "frames_out", "channels", "resolution"),
    [
        (dict(), 2, 2, 1, 16),
        (dict(frames_in=3, channels=2, levels=20), 3, 2, 2, 48),
        (dict(frames_in=1, frames_out=1, channels=3, patch=2), 1, 1, 3, 32),
        (dict(frames_in=3, levels=5, multipliers=(1, 1, 2), head_features="encoder"), 3, 2, 1, 24),
        (dict(levels=5, head_kind="ordinal"), 2, 2, 1, 16),
        (dict(levels=1000, head_features="bottleneck_grid", resolution=32, patch=2), 2, 2, 1, 32),
    ],
)
def test_frames_channels_and_resolution_are_arguments(changes, frames_in, frames_out, channels, resolution):
    network = network_of(**changes)
    with torch.no_grad():
        output, logits = network(frames_of(2, frames_in, channels, resolution, resolution))
    assert output.shape == (2, frames_out, channels, resolution, resolution)
    if network.levels is None:
        assert logits is None
    else:
        assert logits.shape == (2, 2, network.levels + 1) and logits.dtype == torch.float32


def test_an_untrained_network_predicts_nothing_but_passes_gradients_on():
    network = PeriodicUNet(**SMALL, levels=4)
    output, logits = network(frames_of(2, 2, 1, 16, 16))
    assert (output == 0).all() and logits.std() > 0
    F.mse_loss(output, frames_of(2, 2, 1, 16, 16)).backward()
    assert network.leave.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("head_features", "head_kind"),
    [("bottleneck", "categorical"), ("encoder", "ordinal"), ("bottleneck_grid", "categorical")],
)
def test_every_parameter_takes_part_in_the_output(head_features, head_kind):
    changes = {"head_features": head_features, "head_kind": head_kind, "resolution": 16}
    network = network_of(levels=6, attention=True, multipliers=(1, 2, 2), **changes)
    output, _ = network(frames_of(2, 2, 1, 16, 16))
    output.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_the_output_depends_on_every_input_frame_and_channel():
    network = network_of(frames_in=3, channels=2, levels=6)
    x = frames_of(1, 3, 2, 16, 16)
    with torch.no_grad():
        reference, logits = network(x)
        for frame in range(3):
            for channel in range(2):
                changed = x.clone()
                changed[:, frame, channel] += 0.5 * frames_of(16, 16)
                output, changed_logits = network(changed)
                assert ((output - reference).flatten(3).abs().amax(-1) > 1e-3).all()
                assert (changed_logits - logits).abs().amax(-1).min() > 1e-5


def test_the_encoder_alone_makes_the_logits_and_the_decoder_listens_to_them():
    network, x = network_of(levels=9, attention=True), frames_of(2, 2, 1, 16, 16)
    with torch.no_grad():
        skips, bottom, logits = network.encode(x)
        output, same = network(x)
        assert torch.equal(logits, same)
        assert torch.equal(network.decode(skips, bottom, logits.softmax(-1)), output)
        # Adding a constant to all logits of a head changes no probability.
        same_levels = network.decode(skips, bottom, (logits + torch.tensor([[[3.0], [-2.0]]])).softmax(-1))
        torch.testing.assert_close(same_levels, output, rtol=1e-4, atol=1e-4 * output.abs().max().item())
        for side in range(2):
            probabilities = logits.softmax(-1)
            probabilities[:, side] = 0.0
            probabilities[:, side, 7] = 1.0
            assert (network.decode(skips, bottom, probabilities) - output).abs().max() > 1e-2 * output.abs().max()


def test_heads_read_only_the_parts_of_the_encoder_that_the_options_name():
    x = frames_of(1, 2, 1, 16, 16)
    for head_features, listens in (("bottleneck", False), ("encoder", True)):
        network = network_of(levels=4, attention=False, head_features=head_features)
        with torch.no_grad():
            # Without the features of the bottleneck, the signal reaches the heads only from the stages.
            network.middle_in.second.weight.zero_()
            network.encoder[-1][-1].skip.weight.zero_()
            network.encoder[-1][-1].second.weight.zero_()
            first, second = (network.encode(frames)[2] for frames in (x, 2 * x))
        assert torch.equal(first, second) != listens
    with pytest.raises(ValueError, match=r"'decoder' is none of bottleneck_grid, bottleneck, encoder"):
        PeriodicUNet(**SMALL, levels=4, head_features="decoder")


def ordinal_heads(classes: int, weights, centres, log_widths) -> LevelHeads:
    """Heads whose mixture is the same for every input. Arguments (2, 3): one row per frame."""
    heads = LevelHeads(4, classes, 8, "ordinal")
    with torch.no_grad():
        heads.classify.weight.zero_()
        rows = [torch.tensor(part) for part in (weights, centres, log_widths)]
        heads.classify.bias.copy_(torch.cat(rows, 1).flatten())
    return heads


def test_ordinal_heads_are_the_mixture_of_logistics_written_out():
    classes = 21
    weights = [[0.3, -1.0, 0.5], [2.0, 0.0, 0.0]]
    centres = [[0.0, 0.1, -0.2], [0.3, 0.0, 0.05]]
    widths = [[0.5, -0.5, 0.0], [1.0, -1.0, 0.2]]
    with torch.no_grad():
        logits = ordinal_heads(classes, weights, centres, widths)([torch.randn(3, 4, 2, 2)])
    assert logits.shape == (3, 2, classes) and logits.dtype == torch.float32
    level = torch.arange(classes, dtype=F64)
    for frame in range(2):
        total = torch.zeros(classes, dtype=F64)
        shares = torch.tensor(weights[frame], dtype=F64).softmax(0)
        for component in range(3):
            centre = (centres[frame][component] + (0.1, 0.4, 0.7)[component]) * classes
            scale = classes * torch.tensor(widths[frame][component] - 2.5, dtype=F64).exp()
            density = 1 / torch.cosh((level - centre) / (2 * scale)) ** 2
            total += shares[component] * density / density.sum()
        # float32 in the heads
        torch.testing.assert_close(logits[1, frame].exp().double(), total, rtol=1e-4, atol=1e-7)
        assert total.sum().item() == pytest.approx(1)


def test_an_ordinal_head_moves_along_the_scale_and_stays_finite_far_outside_it():
    classes, modes = 101, []
    for centre in (-50.0, -0.1, 0.0, 0.2, 0.5, 50.0):
        narrow = [[0.0, 0.0, 0.0]] * 2
        # All three components at one place: the test removes their spread.
        places = [[centre, centre - 0.3, centre - 0.6]] * 2
        with torch.no_grad():
            logits = ordinal_heads(classes, narrow, places, [[-30.0] * 3] * 2)([torch.randn(1, 4, 2, 2)])
        assert torch.isfinite(logits).all()
        torch.testing.assert_close(logits.logsumexp(-1), torch.zeros(1, 2), rtol=0, atol=1e-4)
        modes.append(logits[0, 0].argmax().item())
    assert modes == [0, 0, 10, 30, 61, 100]


def test_an_unknown_kind_of_head_is_refused():
    with pytest.raises(ValueError, match=r"'gaussian'.*'categorical' nor 'ordinal'"):
        PeriodicUNet(**SMALL, levels=4, head_kind="gaussian")


@pytest.mark.parametrize(("patch", "multipliers", "divisor"), [(1, (1, 2), 2), (2, (1, 1, 1), 8), (1, (1,), 1)])
def test_a_resolution_that_cannot_be_halved_names_the_divisor(patch, multipliers, divisor):
    network = network_of(patch=patch, multipliers=multipliers)
    assert network.divisor == divisor
    network.check_resolution(6 * divisor)
    network(frames_of(1, 2, 1, 2 * divisor, 2 * divisor))
    if divisor > 1:
        for wrong in (6 * divisor + 1, 6 * divisor + divisor // 2):
            with pytest.raises(ValueError, match=f"resolution of {wrong}: it must divide by {divisor}$"):
                network.check_resolution(wrong)
        with pytest.raises(ValueError, match=f"divide by {divisor}$"):
            network(frames_of(1, 2, 1, divisor + 1, divisor + 1))


def test_a_batch_gives_what_its_members_give_alone():
    network, x = network_of(levels=8, attention=True), frames_of(5, 2, 1, 16, 16)
    with torch.no_grad():
        output, logits = network(x)
        # Matrix products of another batch size may sum in another order. The tolerance is float32 rounding over twenty layers.
        for member in range(5):
            alone, own_logits = network(x[member : member + 1])
            torch.testing.assert_close(alone[0], output[member], rtol=1e-4, atol=1e-5 * output.abs().max().item())
            torch.testing.assert_close(own_logits[0], logits[member], rtol=1e-4, atol=1e-5)
    assert (output[0] - output[1]).abs().max() > 0.1


def parameters_of(**changes) -> int:
    with torch.device("meta"):
        network = PeriodicUNet(channels=1, frames_out=2, **{**PUBLISHED, **changes})
    assert all(parameter.is_meta for parameter in network.parameters())
    return sum(parameter.numel() for parameter in network.parameters())


def test_networks_of_the_published_size_can_be_built_without_memory():
    """Base width 64, multipliers 2-2-2, two blocks per level, S = 1000, one channel, an anchor frame."""

    def conv(inputs, outputs, kernel=3):
        return kernel**2 * inputs * outputs + outputs

    def block(inputs, outputs):
        return conv(inputs, outputs) + conv(outputs, outputs) + (conv(inputs, outputs, 1) if inputs != outputs else 0)

    encoder = conv(3, 64) + block(64, 128) + 5 * block(128, 128) + 2 * conv(128, 128)
    attention = 2 * (conv(128, 3 * 128, 1) + conv(128, 128, 1))
    decoder = (
        3 * (block(256, 128) + block(128, 128)) + 2 * conv(128, 128) + conv(128, 2)
    )  # one skip connection per level
    plain = encoder + attention + 2 * block(128, 128) + decoder
    assert parameters_of(frames_in=3) == plain == 5_334_530
    # Heads on 2 x 128 pooled features, the embedding of 2 x 1001 probabilities, and 7 modulations of 128 features.
    heads = conv(256, 128, 1) + conv(128, 128, 1) + conv(128, 2 * 1001, 1)
    embedding = conv(2 * 1001, 128, 1) + conv(128, 128, 1) + 7 * conv(128, 2 * 128, 1)
    with_heads = parameters_of(frames_in=3, levels=1000)
    assert with_heads == plain + heads + embedding == 6_146_260
    # One more frame adds weights only to the first convolution: 3 x 3 for each of 64 features.
    assert with_heads - parameters_of(frames_in=2, levels=1000) == 9 * 64
    with torch.device("meta"):
        network = PeriodicUNet(channels=1, frames_in=1, frames_out=1, **{**PUBLISHED, "attention": False})
        output, _ = network(torch.empty(2, 1, 1, 64, 64))
    assert output.shape == (2, 1, 1, 64, 64)


# --- the denoiser around it ------------------------------------------------------------------------------------------


class Echo:
    """A substitute for a network: it returns the frame itself."""

    frames_out, level_conditioned, heads = 2, False, None

    def encode(self, frames):
        self.frames = frames
        return [], frames, None

    def decode(self, skips, bottom, probabilities):
        return bottom[:, -self.frames_out :]


def test_the_denoiser_stacks_anchor_previous_and_next_in_that_order():
    x_prev, x_next, anchor = frames_of(3, 2, 1, 4, 4).unbind(0)
    level = torch.zeros(2, dtype=torch.int64)
    echo = Echo()
    noise_prev, noise_next = NetworkDenoiser(echo, anchor=True)(x_prev, x_next, level, level, anchor)
    assert torch.equal(noise_prev, x_prev) and torch.equal(noise_next, x_next)
    assert torch.equal(echo.frames, torch.stack([anchor, x_prev, x_next], 1))
    # A denoiser that was trained without an anchor ignores the anchor.
    noise_prev, noise_next = NetworkDenoiser(echo, anchor=False)(x_prev, x_next, level, level, anchor)
    assert torch.equal(noise_prev, x_prev) and torch.equal(noise_next, x_next)
    assert torch.equal(echo.frames, torch.stack([x_prev, x_next], 1))


def test_a_missing_anchor_is_an_error_for_a_denoiser_trained_with_anchors():
    denoiser = NetworkDenoiser(network_of(frames_in=3, levels=4), anchor=True)
    x, level = frames_of(2, 1, 16, 16), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="anchor"):
        denoiser(x, x, level, level)
    with pytest.raises(ValueError, match="anchor"):
        denoiser.level_logits(x, x)


def test_the_denoiser_gets_no_level_as_an_input():
    denoiser = NetworkDenoiser(network_of(levels=9), anchor=False)
    x_prev, x_next = frames_of(2, 3, 1, 16, 16).unbind(0)
    answers = [
        denoiser(x_prev, x_next, torch.full((3,), s_prev), torch.full((3,), s_next))
        for s_prev, s_next in ((0, 9), (4, 2))
    ]
    for first, second in zip(*answers, strict=True):
        assert torch.equal(first, second) and first.shape == x_prev.shape
    assert not torch.allclose(*answers[0], atol=1e-3)


@pytest.mark.parametrize("prediction", ["velocity", "clean"])
def test_other_predictions_become_noise_at_the_levels_of_the_walk(prediction):
    schedule, level = NoiseSchedule.cosine(9), torch.tensor([0, 4, 9])
    denoiser = NetworkDenoiser(Echo(), False, prediction=Prediction(prediction, schedule))
    x_prev, x_next = frames_of(2, 3, 1, 4, 4).unbind(0)
    noise_prev, noise_next = denoiser(x_prev, x_next, level.flip(0), level)
    assert torch.equal(noise_prev, schedule.noise_from(prediction, x_prev, x_prev, level.flip(0)))
    assert torch.equal(noise_next, schedule.noise_from(prediction, x_next, x_next, level))


def test_a_network_of_the_next_frame_alone_sees_nothing_of_the_previous_one():
    network = network_of(frames_in=1, frames_out=1, levels=9)
    denoiser = NetworkDenoiser(network, anchor=False)
    x_prev, x_next = frames_of(2, 2, 1, 16, 16).unbind(0)
    level = torch.zeros(2, dtype=torch.int64)
    noise_prev, noise_next = denoiser(x_prev, x_next, level, level)
    assert not noise_prev.any() and noise_next.std() > 0
    assert torch.equal(noise_next, denoiser(x_prev + 1, x_next, level, level)[1])
    logits = denoiser.level_logits(x_prev, x_next)
    assert logits.shape == (2, 2, 10) and torch.equal(logits[:, 0], logits[:, 1])


def test_a_network_with_levels_as_an_input_uses_them_and_estimates_none():
    network = network_of(levels=9, level_conditioned=True)
    denoiser = NetworkDenoiser(network, anchor=False)
    x_prev, x_next = frames_of(2, 3, 1, 16, 16).unbind(0)
    low, high = torch.full((3,), 1), torch.full((3,), 8)
    assert not torch.allclose(denoiser(x_prev, x_next, low, low)[1], denoiser(x_prev, x_next, low, high)[1], atol=1e-4)
    with pytest.raises(ValueError, match="takes the noise levels as an input, so it cannot"):
        denoiser.level_logits(x_prev, x_next)
    with pytest.raises(ValueError, match="pass them as levels"):
        network(frames_of(1, 2, 1, 16, 16))


def test_level_logits_are_those_of_the_network():
    network = network_of(frames_in=3, levels=9)
    denoiser = NetworkDenoiser(network, anchor=True)
    x_prev, x_next, anchor = frames_of(3, 2, 1, 16, 16).unbind(0)
    with torch.no_grad():
        _, expected = network(torch.stack([anchor, x_prev, x_next], 1))
    logits = denoiser.level_logits(x_prev, x_next, anchor)
    assert torch.equal(logits, expected) and logits.shape == (2, 2, 10) and not logits.requires_grad


def test_in_bfloat16_noise_and_logits_still_come_out_in_float32():
    network = network_of(levels=9, attention=True)
    exact = NetworkDenoiser(network, anchor=False)
    coarse = NetworkDenoiser(network, anchor=False, context=torch.autocast("cpu", dtype=torch.bfloat16))
    x_prev, x_next = frames_of(2, 2, 1, 16, 16).unbind(0)
    level = torch.zeros(2, dtype=torch.int64)
    for _ in range(2):  # every call enters the context anew
        noises, logits = coarse(x_prev, x_next, level, level), coarse.level_logits(x_prev, x_next)
    for noise, reference in zip(noises, exact(x_prev, x_next, level, level), strict=True):
        assert noise.dtype == torch.float32 and not torch.equal(noise, reference)
        # bfloat16 has eight bits of mantissa; the depth of the network adds a factor of about ten.
        assert (noise - reference).norm() < 0.1 * reference.norm()
    assert logits.dtype == torch.float32
    reference = exact.level_logits(x_prev, x_next)
    assert (logits - reference).norm() < 0.1 * reference.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("margin", [(1, 1), (2, 2), (0, 1)])
def test_the_gradient_of_circular_padding_is_that_of_torch_bit_for_bit(dtype, margin):
    x = frames_of(3, 4, 6, 8).to(dtype).requires_grad_()
    rows, columns = margin
    padded = F.pad(x, (columns, columns, rows, rows), mode="circular")
    gradient = frames_of(*padded.shape).to(dtype)
    result = _CircularPad.apply(x, margin)
    assert torch.equal(result, padded)
    assert torch.equal(*(torch.autograd.grad(y, x, gradient)[0] for y in (result, padded)))


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="torch.compile finds no C++ compiler")
def test_a_compiled_network_gives_the_same_to_rounding_for_any_number_of_members():
    network = network_of(width=4, frames_in=3, multipliers=(1, 1), levels=6, head_width=8).requires_grad_(False)
    plain, fast = (
        TrainedModel(network, {}, torch.device("cpu"), compile).running("float32")[0] for compile in (False, True)
    )
    assert plain is network and fast is not network
    with torch.no_grad():
        for rows in (4, 3):  # the batch of 3 is filled up to 4, so no further graph is compiled
            frames = frames_of(rows, 3, 1, 8, 8)
            for expected, compiled in zip(plain(frames), fast(frames), strict=True):
                torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
def test_centred_features_have_a_gradient_however_far_below_zero_they_lie(centred):
    network = network_of(centred=centred)
    torch.nn.init.constant_(network.decoder[-1][-1].skip.bias, -100.0)
    frames = torch.randn(2, network.frames_in, network.channels, 16, 16, generator=torch.Generator().manual_seed(0))
    output, _ = network(frames)
    output.sum().backward()
    assert bool(network.leave.weight.grad.abs().max() > 0) == centred


def test_heads_draw_their_first_weights_alone():
    """Layers that a network does not have draw no random numbers, so a seed keeps giving the weights that it gave."""
    torch.manual_seed(0)
    heads = LevelHeads(6, 5, 4)
    torch.manual_seed(0)
    for layer, (inputs, outputs) in ((heads.trunk[0], (12, 4)), (heads.trunk[2], (4, 4)), (heads.classify, (4, 10))):
        assert torch.equal(layer.weight, torch.nn.Linear(inputs, outputs).weight)
