"""Data sets whose test rows are drawn anew for each study, so that no two studies are judged on the same rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from hpo import data
from hpo.config import OwnData, Split

TABLE_TEST = 0.2
"""Share of a table's rows that are tested on, as hpo cuts them."""


@dataclass(frozen=True)
class FreshRows:
    """One drawing of the test rows. Both sources have the same training rows."""

    searched: OwnData
    """What is searched and confirmed: with the test rows that came with the data if there are such, else the drawn."""
    drawn: OwnData
    """With test rows drawn from the same rows as those of training."""

    @property
    def has_its_own(self) -> bool:
        """Whether the data came with test rows, which may differ from those of training."""
        return self.searched != self.drawn


def of_data_set(name: str, seed: int, folder: Path) -> FreshRows:
    """Draw the test rows of a data set that hpo knows, as many as it has; write all rows to files in a folder."""
    info = data.info(name)
    parts = data.load_parts(info, Split())
    x, y = np.concatenate([parts.train.x, parts.validation.x]), np.concatenate([parts.train.y, parts.validation.y])
    own = data.load_test(info)
    if info.test_like_training:
        x, y = np.concatenate([x, own.x]), np.concatenate([y, own.y])
    train, drawn = _drawn(y, info.rows[1], seed)
    np.savez(folder / "train.npz", x=x[train], y=y[train], classes=np.array(info.classes))
    np.savez(folder / "drawn.npz", x=x[drawn], y=y[drawn])
    fresh = OwnData(npz=str(folder / "train.npz"), test=str(folder / "drawn.npz"))
    if info.test_like_training:
        return FreshRows(fresh, fresh)
    np.savez(folder / "own.npz", x=own.x, y=own.y)
    return FreshRows(OwnData(npz=fresh.npz, test=str(folder / "own.npz")), fresh)


def of_table(path: Path, target: str, seed: int, folder: Path) -> FreshRows:
    """Draw the test rows of a CSV file; write all rows to files in a folder."""
    table = pd.read_csv(path)
    train, drawn = _drawn(table[target].to_numpy(), round(TABLE_TEST * len(table)), seed)
    table.iloc[train].to_csv(folder / "train.csv", index=False)
    table.iloc[drawn].to_csv(folder / "drawn.csv", index=False)
    fresh = OwnData(csv=str(folder / "train.csv"), target=target, test=str(folder / "drawn.csv"))
    return FreshRows(fresh, fresh)


def _drawn(labels: NDArray[np.generic], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training rows and `count` drawn ones, stratified."""
    train, drawn = train_test_split(np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed)
    return train, drawn
