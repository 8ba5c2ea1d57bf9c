"""Rollouts: the engine repeats a method, observers write statistics and frames, segments follow one another."""

from sns_core.rollout.engine import Observer, iterate, roll
from sns_core.rollout.segment import rollout_segment

__all__ = ["Observer", "iterate", "roll", "rollout_segment"]
