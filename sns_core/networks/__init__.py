"""Networks: one periodic U-Net, with or without noise-level heads, and its face as a denoiser."""

from sns_core.networks.denoiser import EncodedPair, NetworkDenoiser
from sns_core.networks.unet import PeriodicUNet

__all__ = ["EncodedPair", "NetworkDenoiser", "PeriodicUNet"]
