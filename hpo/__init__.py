"""Hyperparameter search for PyTorch classifiers, with studies that persist."""

__version__ = "0.1.0"
