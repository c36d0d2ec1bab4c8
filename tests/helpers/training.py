"""A small MLP on digits that tests of training train."""

import torch

from hpo.config import MLP, Adam, OneCycle, Split, TrialConfig

CPU = torch.device("cpu")
MLP_RUN = TrialConfig(
    "digits", MLP((64, 32), (0.3, 0.1), norm="batch"), Adam(2e-3), 32, 8, seed=3, schedule=OneCycle(), split=Split(0.25)
)
