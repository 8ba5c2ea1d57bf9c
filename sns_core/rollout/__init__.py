"""Rollouts: one stepper a method, streaming statistics, and the segments of arbitrarily long runs."""

from sns_core.rollout.segment import rollout_segment
from sns_core.rollout.steppers import build_stepper

__all__ = ["build_stepper", "rollout_segment"]
