"""What Optuna itself would do: its pruners by the names of ours, and a trial with fixed draws."""

import optuna

ORACLES = {
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4),
    "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=6, reduction_factor=4),
    "median": optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    "percentile": optuna.pruners.PercentilePruner(25.0, n_startup_trials=5, n_warmup_steps=1),
    "threshold": optuna.pruners.ThresholdPruner(lower=0.3, n_warmup_steps=1),
}


class FixedTrialLike:
    def __init__(self, draws: dict[str, object]) -> None:
        self.draws = draws

    def suggest_int(self, name: str, low: int, high: int, **_: object) -> int:
        return self.draws[name]  # type: ignore[return-value]

    def suggest_float(self, name: str, low: float, high: float, **_: object) -> float:
        return self.draws[name]  # type: ignore[return-value]

    def suggest_categorical(self, name: str, choices: object) -> object:
        return self.draws[name]
