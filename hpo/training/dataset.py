"""A data set on the device: standardized once, resident, sliced by index."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpo.data import Inputs, Parts


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
