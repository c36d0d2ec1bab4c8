"""Training: engines that train trials epoch by epoch. It knows configs and data, not the search.

Importing this package does not import torch; its modules do.
"""
