"""Distilled flow matching: one or a few long moves from noise to the next frame, each in one call."""

from sns_core.methods.base import Parts
from sns_core.methods.flow_matching import FlowMatching


class DistilledFlowMatching(FlowMatching):
    """Flow matching in Euler's moves, with a network of their mean velocity (`training.distillation`).

    The model says how many moves there are, and at which times.
    """

    needs = {"velocity": ("distilled_flow_matching",)}

    @classmethod
    def build(cls, parts: Parts) -> "DistilledFlowMatching":
        model = parts.models["velocity"]
        network = model.increments(parts.hardware.precision)
        times = {"moves": model.spec["moves"], "bend": model.spec["bend"]}
        return cls(network.velocity, network.increment_std, **times, frames=parts.frames)
