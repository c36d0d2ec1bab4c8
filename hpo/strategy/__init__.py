"""Samplers and pruners: Optuna's own, on a study held in memory."""
