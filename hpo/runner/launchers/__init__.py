"""Launchers: they start, watch and stop workers on this machine, on a Ray cluster or under Slurm."""
