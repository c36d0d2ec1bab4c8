"""The tables of a store: Optuna's, in its schema version 12, and those of hpo.

Optuna makes and migrates its tables; here they are only described, so that they can be read and written in
bulk. `tests/test_schema.py` compares this description with Optuna's models.
"""

import sqlalchemy as sa

from hpo.store.record import State

OPTUNA_REVISION = "v3.2.0.a"
"""The alembic revision of Optuna's tables that this description fits."""
HPO_REVISION = 2
"""The version of hpo's own tables, and of what is written into all: hpo 0.1.0 wrote 1."""
WATCH_SECONDS = 2.5
"""Time in which the beat of a living worker changes."""

optuna_tables = sa.MetaData()
hpo_tables = sa.MetaData()

alembic_version = sa.Table("alembic_version", optuna_tables, sa.Column("version_num", sa.String))
studies = sa.Table(
    "studies",
    optuna_tables,
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("study_name", sa.String),
)
study_directions = sa.Table(
    "study_directions",
    optuna_tables,
    sa.Column("study_direction_id", sa.Integer, primary_key=True),
    sa.Column("direction", sa.Enum("NOT_SET", "MINIMIZE", "MAXIMIZE", name="studydirection")),
    sa.Column("study_id", sa.Integer),
    sa.Column("objective", sa.Integer),
)
study_user_attributes = sa.Table(
    "study_user_attributes",
    optuna_tables,
    sa.Column("study_user_attribute_id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer),
    sa.Column("key", sa.String),
    sa.Column("value_json", sa.Text),
)
study_system_attributes = sa.Table(
    "study_system_attributes",
    optuna_tables,
    sa.Column("study_system_attribute_id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer),
    sa.Column("key", sa.String),
    sa.Column("value_json", sa.Text),
)
trials = sa.Table(
    "trials",
    optuna_tables,
    sa.Column("trial_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer),
    sa.Column("study_id", sa.Integer),
    sa.Column("state", sa.Enum(*(state.value for state in State), name="trialstate")),
    sa.Column("datetime_start", sa.DateTime),
    sa.Column("datetime_complete", sa.DateTime),
)
trial_user_attributes = sa.Table(
    "trial_user_attributes",
    optuna_tables,
    sa.Column("trial_user_attribute_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("key", sa.String),
    sa.Column("value_json", sa.Text),
)
trial_system_attributes = sa.Table(
    "trial_system_attributes",
    optuna_tables,
    sa.Column("trial_system_attribute_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("key", sa.String),
    sa.Column("value_json", sa.Text),
)
trial_params = sa.Table(
    "trial_params",
    optuna_tables,
    sa.Column("param_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("param_name", sa.String),
    sa.Column("param_value", sa.Float),
    sa.Column("distribution_json", sa.Text),
)
trial_values = sa.Table(
    "trial_values",
    optuna_tables,
    sa.Column("trial_value_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("objective", sa.Integer),
    sa.Column("value", sa.Float),
    sa.Column("value_type", sa.Enum("FINITE", "INF_POS", "INF_NEG", name="trialvaluetype")),
)
trial_intermediate_values = sa.Table(
    "trial_intermediate_values",
    optuna_tables,
    sa.Column("trial_intermediate_value_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("step", sa.Integer),
    sa.Column("intermediate_value", sa.Float),
    sa.Column(
        "intermediate_value_type",
        sa.Enum("FINITE", "INF_POS", "INF_NEG", "NAN", name="trialintermediatevaluetype"),
    ),
)

trials_by_state = sa.Index("hpo_trials_by_state", trials.c.study_id, trials.c.state)
"""An index of hpo's on Optuna's table: every claim counts the finished trials."""

hpo_schema = sa.Table(
    "hpo_schema",
    hpo_tables,
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("last_study_id", sa.Integer, nullable=False, default=0),
    sa.Column("last_trial_id", sa.Integer, nullable=False, default=0),
    comment="SQLite would give the ids of deleted rows out again; new ids begin above these",
)
hpo_studies = sa.Table(
    "hpo_studies",
    hpo_tables,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("uid", sa.String(32), nullable=False),
    sa.Column("budget_json", sa.Text, nullable=False),
    sa.Column("active_seconds", sa.Float, nullable=False, default=0.0),
    sa.Column("last_tick", sa.Float, nullable=True),
    sa.Column("stop_reason", sa.Text, nullable=True),
    sa.Column("revision", sa.Integer, nullable=False, default=0),
    comment="One row per study of ours: its budget, and what has been used of it",
)
hpo_workers = sa.Table(
    "hpo_workers",
    hpo_tables,
    sa.Column("worker_id", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("beat", sa.Integer, nullable=False, default=0),
    sa.Column("state_json", sa.Text, nullable=False),
    comment="Who is at work; a beat that stands still is a worker that is gone",
)
hpo_leases = sa.Table(
    "hpo_leases",
    hpo_tables,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("worker_id", sa.String(32), nullable=False, index=True),
    comment="Which worker runs which trial",
)
TRIAL_TABLES = (
    trial_user_attributes,
    trial_system_attributes,
    trial_params,
    trial_values,
    trial_intermediate_values,
)
"""Optuna's tables whose rows belong to a trial; `trial_heartbeats`, which hpo never writes, does too."""
STUDY_TABLES = (study_user_attributes, study_system_attributes, study_directions)
"""Optuna's tables whose rows belong to a study, besides its trials."""
trial_heartbeats = sa.table("trial_heartbeats", sa.column("trial_id"))
