"""Networks: one periodic U-Net with or without noise-level heads, and the denoiser and the surrogate around it."""

from sns_core.networks.denoiser import EncodedPair, NetworkDenoiser
from sns_core.networks.surrogate import NetworkSurrogate
from sns_core.networks.unet import PeriodicUNet

__all__ = ["EncodedPair", "NetworkDenoiser", "NetworkSurrogate", "PeriodicUNet"]
