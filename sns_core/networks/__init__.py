"""Networks: one periodic U-Net with or without noise-level heads, and the denoiser around it."""

from sns_core.networks.denoiser import EncodedPair, NetworkDenoiser
from sns_core.networks.unet import PeriodicUNet

__all__ = ["EncodedPair", "NetworkDenoiser", "PeriodicUNet"]
