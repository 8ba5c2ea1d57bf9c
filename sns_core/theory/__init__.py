"""The paper's theorems as numbers: exact results on a Gaussian process, and the error of a network that learns it."""
