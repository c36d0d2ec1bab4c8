"""optuna-dashboard over a store: fast on large studies, and closed to whom it is not meant for."""
