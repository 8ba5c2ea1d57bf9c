"""Lyapunov exponents of any map of fields: a solver, a surrogate, a method that draws.

Small disturbances of one trajectory are carried along with it, as further members of its batch, and are made orthogonal
again after every few steps (Benettin et al. 1980). The mean logarithms of their growth are the largest exponents. No
derivative of the map is needed.

A map that draws must give all members the same random numbers, as `step_map` does. Its exponents are those of a random map:
the rates at which two runs with the same noise part. If the largest one is negative, the noise alone decides where a run goes.
"""

import itertools
from collections.abc import Callable

import torch

from sns_core.errors import UserError
from sns_core.methods.base import FrameMethod, further_state
from sns_core.streams import MemberStreams


def step_map(method: FrameMethod, start: torch.Tensor, seed: int, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the steps of a method, one after the other, as maps of frames (B, C, H, W) in its own units.

    All rows of a call get the same random numbers. `start` (1, C, H, W): the state at which the rollout begins; what the
    method keeps of it, such as an anchor, stays, and the number of the step goes on. `seed` and `name`: of the run and of
    the method. A map raises UserError for a method with a state beside the frame, which a disturbed frame does not have.
    """
    entries, numbers = method.start(start), itertools.count(1)

    @torch.no_grad()
    def advance(frames: torch.Tensor) -> torch.Tensor:
        carry = {key: values[:1].expand(len(frames), *values.shape[1:]) for key, values in entries.items()}
        carry["frame"] = frames
        streams = MemberStreams(seed, "lyapunov", name, members=[0] * len(frames), device=frames.device)
        after, _ = method.step(carry, streams.at(next(numbers)))
        if further := further_state(carry, after):
            raise UserError(
                f"{name}: carries {', '.join(further)} from step to step beside the frame, so it is no map of frames; "
                "measure another method"
            )
        if "step" in after:
            entries["step"] = after["step"]
        return method.frame(after)

    return advance


def lyapunov_exponents(
    advance: Callable[[torch.Tensor], torch.Tensor],
    state: torch.Tensor,
    count: int,
    stretches: int,
    duration: float,
    generator: torch.Generator,
    size: float = 1e-6,
    settling: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` largest exponents and their standard errors, each (count,) on the CPU, per unit of time, the largest
    first.

    `advance`: states (B, C, H, W) -> states after the time `duration`, between two orthogonalisations. `state` (C, H, W): a
    state on the attractor. `stretches`: their number, after `settling` more in which the disturbances turn into their
    directions. `size`: root mean square of a disturbance, small against the state and large against its rounding. The
    standard errors are those of means over ten parts of the stretches.
    """
    points = state.numel()
    frame = torch.linalg.qr(torch.randn(points, count, generator=generator, dtype=torch.float64)).Q
    scale, growth = size * points**0.5, []
    for stretch in range(settling + stretches):
        disturbances = (scale * frame.T).reshape(count, *state.shape).to(state)
        after = advance(torch.cat([state[None], state + disturbances]))
        state = after[0]
        changes = ((after[1:] - state) / scale).reshape(count, points).T
        frame, triangle = torch.linalg.qr(changes.double())
        if stretch >= settling:
            growth.append(triangle.diagonal().abs().log().cpu() / duration)
    growth = torch.stack(growth)
    parts = torch.stack([part.mean(0) for part in growth.tensor_split(min(10, len(growth)))])
    return growth.mean(0), parts.std(0) / len(parts) ** 0.5
