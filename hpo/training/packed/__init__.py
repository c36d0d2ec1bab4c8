"""The packed engine: trials of different widths, depths and optimizers are trained together as one program.

Importing this package does not import torch; its modules do.
"""
