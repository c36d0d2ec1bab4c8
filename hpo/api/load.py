"""`hpo.load`: a trained network from its folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from hpo.service.trust import allow_code

if TYPE_CHECKING:
    from hpo.results.model_folder import Classifier


def load(folder: str | Path, python: str | Path | None = None) -> "Classifier":
    """Return the trained network of a model folder that `hpo train` or `Study.train` wrote.

    It is an `nn.Module` in eval mode: [N, C, H, W] or [N, F] of raw numbers (pixels 0..255) to logits [N, classes];
    `.classes` names them, `.predict_proba(X)` takes arrays, DataFrames and paths.

    Args:
        folder: The model folder.
        python: Python file of a network of your own, which the folder needs.

    Raises:
        hpo.errors.HpoError: if the folder is missing or damaged.
    """
    from hpo.results.model_folder import load_model_folder

    allow_code([] if python is None else [python])
    return load_model_folder(folder)
