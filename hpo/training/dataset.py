"""A data set on the device: standardized once, kept there, and indexed for each batch."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import OwnData, Split, TrialConfig
from hpo.data import Inputs, Parts, info, load_parts

DataKey = tuple[str | OwnData, Split, float, int | None]
"""Identity of a data set on a device: data, split, fraction of the rows, size of the images."""


def data_key(config: TrialConfig) -> DataKey:
    """Return the identity of a config's data set on a device."""
    return config.data, config.split, config.data_fraction, config.image_size


@dataclass(frozen=True)
class ResidentData:
    """Training and validation rows as float32 tensors on a device, labels as int64.

    x is [N, F] for tables and for networks that flatten, [N, C, H, W] for images.
    """

    train_x: Tensor
    train_y: Tensor
    validation_x: Tensor
    validation_y: Tensor
    black: Tensor
    """Standardized value of 0 (black), per channel or column."""
    classes: int
    input_shape: tuple[int, ...]


def resident(parts: Parts, config: TrialConfig, device: torch.device) -> ResidentData:
    """Return the rows that a config trains and validates on, standardized, on a device."""
    train = parts.train
    if config.data_fraction < 1:
        kept = fraction(train.y, config.data_fraction, config.split.seed)
        train = Inputs(train.x[kept], train.y[kept])
    train_x, validation_x = (scaled(standardized(p, parts, device), config) for p in (train, parts.validation))
    return ResidentData(
        train_x=train_x,
        train_y=torch.from_numpy(train.y).to(device),
        validation_x=validation_x,
        validation_y=torch.from_numpy(parts.validation.y).to(device),
        black=torch.from_numpy(-parts.mean / parts.std).to(device),
        classes=len(parts.info.classes),
        input_shape=tuple(train_x.shape[1:]),
    )


def fraction(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of a stratified random subset with this share of the rows.

    Each class keeps at least one row, and the subset of a smaller share is contained in that of a larger one. Not
    scikit-learn's `train_test_split`: that selects other rows for the same seed, so that stored configs would train on
    other rows than before; its subsets are not contained in one another; and it refuses classes with a single row.
    """
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    subset = [rng.permutation(rows)[: max(1, round(share * len(rows)))] for rows in classes]
    return np.sort(np.concatenate(subset))


def scaled(x: Tensor, config: TrialConfig) -> Tensor:
    """Return images scaled to the size in a config; unchanged if it has none, or for tables."""
    if config.image_size is None or x.dim() != 4:
        return x
    return resized(x, config.image_size).contiguous(memory_format=torch.channels_last)


def resized(x: Tensor, size: int) -> Tensor:
    """Return images [N, C, H, W] scaled to size x size, bilinear with antialiasing."""
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def balanced_weights(data: ResidentData) -> Tensor:
    """Return each class's weight in the loss, [classes]: rows / (classes * rows of the class), as in scikit-learn."""
    counts = torch.bincount(data.train_y, minlength=data.classes)
    return len(data.train_y) / (data.classes * counts.clamp(min=1).to(data.train_x.dtype))


def standardized(inputs: Inputs, parts: Parts, device: torch.device) -> Tensor:
    """Return rows as float32: divided by the data's scale, minus the mean, divided by the standard deviation."""
    x = torch.from_numpy(inputs.x.astype(np.float32)).to(device).div_(parts.info.scale)
    shape = (1, -1, 1, 1) if parts.info.kind == "images" else (1, -1)
    mean, std = (torch.from_numpy(v).to(device).view(shape) for v in (parts.mean, parts.std))
    x = x.sub_(mean).div_(std)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


class DataSets:
    """The data sets of the trials so far, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: dict[DataKey, ResidentData] = {}
        self._cuts: list[Split] = []

    def of(self, config: TrialConfig) -> ResidentData:
        """Return a config's data, resident on the device. Raises: DataError.

        Of the other cuts into training and validation rows, only the latest one is kept: a confirmation uses many, one
        after the other.
        """
        key = data_key(config)
        if key not in self._loaded:
            self._loaded[key] = resident(load_parts(info(config.data), config.split), config, self.device)
        self._cuts = [*(cut for cut in self._cuts if cut != config.split), config.split][-2:]
        self._loaded = {known: rows for known, rows in self._loaded.items() if known[1] in self._cuts}
        return self._loaded[key]
