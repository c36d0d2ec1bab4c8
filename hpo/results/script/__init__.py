"""A config as one PyTorch script, for reading and pasting: torch, torchvision and nothing of hpo's."""

from hpo.results.script.builder import to_script

__all__ = ["to_script"]
