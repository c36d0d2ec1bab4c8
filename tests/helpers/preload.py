"""Imported once by the server that the processes of `tests.helpers.command` are forked from."""

import optuna._gp.acqf
import optuna._gp.gp
import optuna._gp.optim_mixed
import optuna.importance
import optuna.samplers
import optuna.storages._rdb.storage  # noqa: F401
import pandas  # noqa: F401
import plotly.graph_objects  # noqa: F401
import psycopg  # noqa: F401
import pytest  # noqa: F401
import scipy.optimize
import scipy.stats  # noqa: F401
import sklearn.datasets
import sklearn.preprocessing  # noqa: F401
import torch  # noqa: F401

import hpo.cli
import hpo.plots
import hpo.results.export
import hpo.runner.session
import hpo.runner.worker
import hpo.training.packed.engine
import hpo.training.solo  # noqa: F401
