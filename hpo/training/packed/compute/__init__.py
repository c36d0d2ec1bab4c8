"""Mathematics: the forward and backward passes, loss, optimizers and averages of all slots, and an epoch of them.

Importing this package does not import torch; its modules do.
"""
