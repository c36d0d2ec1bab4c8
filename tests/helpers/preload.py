"""Imported once by the server that the processes of `tests.helpers.command` are forked from."""

import matplotlib  # noqa: F401
import optuna.importance
import optuna.samplers  # noqa: F401
import pandas  # noqa: F401
import psycopg  # noqa: F401
import pytest  # noqa: F401
import sklearn.preprocessing  # noqa: F401
import torch  # noqa: F401

import hpo.cli
import hpo.results.export
import hpo.runner.session
import hpo.runner.worker
import hpo.training.packed.engine
import hpo.training.solo  # noqa: F401
