"""Placement: which trials may share a lane, and networks of different shapes side by side in padded tensors.

Importing this package does not import torch; its modules do.
"""
