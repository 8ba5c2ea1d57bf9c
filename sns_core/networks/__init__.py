"""Networks: one periodic U-Net with or without noise-level heads, and the functions around it that methods call."""

from sns_core.networks.denoiser import EncodedPair, NetworkDenoiser
from sns_core.networks.increments import IncrementNetwork
from sns_core.networks.surrogate import NetworkSurrogate
from sns_core.networks.unet import PeriodicUNet

__all__ = ["EncodedPair", "IncrementNetwork", "NetworkDenoiser", "NetworkSurrogate", "PeriodicUNet"]
