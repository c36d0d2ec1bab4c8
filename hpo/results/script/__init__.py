"""A config as one PyTorch script to read and to copy from: it needs torch and torchvision, but not hpo."""

from hpo.results.script.builder import to_script

__all__ = ["to_script"]
