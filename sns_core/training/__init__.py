"""Training: objectives, the resumable loop, and the model files that it leaves."""

from sns_core.training.models import TrainedModel, load_model
from sns_core.training.train import train_model

__all__ = ["TrainedModel", "load_model", "train_model"]
