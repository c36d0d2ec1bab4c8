"""The store: studies and trials in Optuna's own tables, and workers, leases and budgets in tables of hpo.

Everything that Optuna and its dashboard read is written as Optuna writes it. What its schema cannot hold -
workers, leases, budgets - lies in `hpo_*` tables in the same database.
"""
