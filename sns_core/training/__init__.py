"""Training of networks: objectives, the resumable loop, and model files.

`objectives` defines the losses, `trainer` one training step, `checkpoint` and `history` the state and the record of a
training, `train` the stage, and `models` the finished model files.
"""

from sns_core.training.models import TrainedModel, load_model, load_models, restore_model
from sns_core.training.train import train_model

__all__ = ["TrainedModel", "load_model", "load_models", "restore_model", "train_model"]
