"""The store: studies and trials in Optuna's own tables, and who is working on what in a few of ours.

Everything that Optuna and its dashboard read is written as Optuna writes it. What its schema cannot hold -
workers, leases, budgets - lies in `hpo_*` tables in the same database.
"""
