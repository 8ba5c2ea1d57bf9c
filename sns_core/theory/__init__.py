"""The paper's theorems as numbers: what holds exactly on a Gaussian process, and how closely a network comes to it."""
