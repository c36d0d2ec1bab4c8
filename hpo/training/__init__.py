"""Training: engines that advance trials epoch by epoch. Knows configs and data, never the search.

Importing this package does not import torch; `hpo.training.solo` and its neighbours do.
"""
