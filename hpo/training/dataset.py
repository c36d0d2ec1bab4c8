"""A data set on the device: standardized once, resident, sliced by index."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpo.config import OwnData, Split, TrialConfig
from hpo.data import Inputs, Parts, info, load_parts

DataKey = tuple[str | OwnData, Split]
"""What a data set on a device goes by."""


@dataclass(frozen=True)
class ResidentData:
    """Training and validation rows as float32 tensors on a device, labels as int64.

    x is [N, F] for tables and for networks that flatten, [N, C, H, W] for images.
    """

    train_x: Tensor
    train_y: Tensor
    validation_x: Tensor
    validation_y: Tensor
    classes: int
    input_shape: tuple[int, ...]


def resident(parts: Parts, device: torch.device) -> ResidentData:
    """Standardize a data set's parts and put them on a device."""
    return ResidentData(
        train_x=standardized(parts.train, parts, device),
        train_y=torch.from_numpy(parts.train.y).to(device),
        validation_x=standardized(parts.validation, parts, device),
        validation_y=torch.from_numpy(parts.validation.y).to(device),
        classes=len(parts.info.classes),
        input_shape=parts.info.input_shape,
    )


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
        key = (config.data, config.split)
        if key not in self._loaded:
            self._loaded[key] = resident(load_parts(info(config.data), config.split), self.device)
        return self._loaded[key]
