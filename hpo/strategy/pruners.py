"""Pruners: Optuna's own, by the names that recipes use."""

from optuna import pruners
from optuna.pruners import BasePruner

from hpo.recipe import Pruner


def make_pruner(recipe: Pruner, epochs: int) -> BasePruner:
    """Return the pruner that a recipe names, for trainings of so many epochs.

    It judges after whole epochs, counted from 1.
    """
    match recipe.name:
        case "successive_halving":
            return pruners.SuccessiveHalvingPruner(min_resource=recipe.min_epochs, reduction_factor=recipe.reduction)
        case "median":
            return pruners.MedianPruner(n_startup_trials=recipe.startup_trials, n_warmup_steps=recipe.min_epochs)
        case "hyperband":
            return pruners.HyperbandPruner(
                min_resource=recipe.min_epochs, max_resource=epochs, reduction_factor=recipe.reduction
            )
        case "percentile":
            return pruners.PercentilePruner(
                recipe.percentile, n_startup_trials=recipe.startup_trials, n_warmup_steps=recipe.min_epochs
            )
        case "patient":
            return pruners.PatientPruner(None, patience=recipe.patience)
        case "threshold":
            return pruners.ThresholdPruner(lower=recipe.threshold, n_warmup_steps=recipe.min_epochs)
        case "none":
            return pruners.NopPruner()
