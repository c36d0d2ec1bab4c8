"""A data set on the device: standardized once, resident, sliced by index."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import OwnData, Split, TrialConfig
from hpo.data import Inputs, Parts, info, load_parts

DataKey = tuple[str | OwnData, Split, float, int | None]
"""What a data set on a device goes by: rows, split, part of the rows, size of the images."""


def data_key(config: TrialConfig) -> DataKey:
    """Return what a config's data goes by."""
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
    """What 0 became, per channel or column."""
    classes: int
    input_shape: tuple[int, ...]


def resident(parts: Parts, config: TrialConfig, device: torch.device) -> ResidentData:
    """Standardize what a config trains and validates on, and put it on a device."""
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


def fraction(labels: NDArray[np.int64], part: float, seed: int) -> NDArray[np.int64]:
    """Return the rows that make up a part of all, by class; each class keeps a row at least."""
    chance = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    kept = [chance.permutation(of_class)[: max(1, round(part * len(of_class)))] for of_class in rows]
    return np.sort(np.concatenate(kept))


def scaled(x: Tensor, config: TrialConfig) -> Tensor:
    """Return images of the size that a config wants, others as they are."""
    if config.image_size is None or x.dim() != 4:
        return x
    return resized(x, config.image_size).contiguous(memory_format=torch.channels_last)


def resized(x: Tensor, size: int) -> Tensor:
    """Return images [N, C, H, W] scaled to size x size, bilinear, without aliasing."""
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def balanced_weights(data: ResidentData) -> Tensor:
    """Return the weight of each class in the loss: rows / (classes * rows of the class), as scikit-learn has it."""
    counts = torch.bincount(data.train_y, minlength=data.classes)
    return len(data.train_y) / (data.classes * counts.clamp(min=1).to(data.train_x.dtype))


def standardized(inputs: Inputs, parts: Parts, device: torch.device) -> Tensor:
    """Return the rows divided by the scale, less the mean, over the standard deviation; channels last."""
    x = torch.from_numpy(inputs.x.astype(np.float32)).to(device).div_(parts.info.scale)
    shape = (1, -1, 1, 1) if parts.info.kind == "images" else (1, -1)
    mean, std = (torch.from_numpy(v).to(device).view(shape) for v in (parts.mean, parts.std))
    x = x.sub_(mean).div_(std)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


class DataSets:
    """The data sets that trials have asked for, which stay on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: dict[DataKey, ResidentData] = {}

    def of(self, config: TrialConfig) -> ResidentData:
        """Return a config's data, resident on the device. Raises: DataError."""
        key = data_key(config)
        if key not in self._loaded:
            self._loaded[key] = resident(load_parts(info(config.data), config.split), config, self.device)
        return self._loaded[key]
