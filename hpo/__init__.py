"""Hyperparameter search for PyTorch classifiers, with studies that persist."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpo.results.model_folder import Classifier

__version__ = "0.2.0.dev0"


def load(folder: str | Path, python: str | Path | None = None) -> "Classifier":
    """Return the trained network of a model folder that `hpo train` wrote.

    An `nn.Module` in eval mode: [N, C, H, W] or [N, F] of raw numbers (pixels 0..255) to logits [N, classes];
    `.classes` names them. A network of your own needs its Python file: name it as `python`.
    Raises: hpo.errors.HpoError if the folder is missing or damaged.
    """
    from hpo import user_code
    from hpo.results import model_folder  # here, for it imports torch

    if python is not None:
        user_code.trust(Path(python))
    return model_folder.load_model_folder(folder)
