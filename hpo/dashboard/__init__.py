"""optuna-dashboard over a store: fast on large studies, and with access control."""
