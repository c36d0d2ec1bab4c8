"""Scheduling: which trials are trained together, when, in lanes of which size, and what runs out of memory.

Importing this package does not import torch; its modules do.
"""
