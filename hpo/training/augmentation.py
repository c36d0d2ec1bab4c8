"""Augmentation of all images of an epoch at once, on the device, as a function of (seed, epoch) alone.

Images are already standardized: `black` is the value of a black pixel in each channel. Shapes: N images, C channels,
H height, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config import Augment
from hpo.training.randomness import generator

CHUNK = 1000
"""Images that are processed together: few enough to stay in the cache."""
_DRAWS = 11
"""Number of random numbers per image."""
ERASE_AREA, ERASE_ASPECT = (0.02, 0.33), (0.3, 3.3)
"""Ranges of the erased share of the image and of its width / height: the defaults of torchvision's RandomErasing."""


def augmented(x_NCHW: Tensor, augment: Augment, black_C: Tensor, *, seed: int, epoch: int, out: Tensor) -> None:
    """Write the augmented images of an epoch to `out`, in the same order; `x_NCHW` is not changed."""
    source = generator(x_NCHW.device, "augment", seed, epoch)
    chance = torch.rand(len(x_NCHW), _DRAWS, generator=source, device=x_NCHW.device)
    black = black_C.to(x_NCHW.dtype).view(1, -1, 1, 1)
    for x, draws, to in zip(*(torch.split(whole, CHUNK) for whole in (x_NCHW, chance, out)), strict=True):
        to.copy_(_changed(x, augment, black, draws))


def _changed(x: Tensor, augment: Augment, black: Tensor, chance: Tensor) -> Tensor:
    """Return augmented images; `chance` are uniform random numbers [N, 11], and each kind uses its own columns."""
    if augment.jitter:
        x = _jittered(x, augment.jitter, black, chance[:, 0:3])
    if augment.rotate:
        x = _rotated(x, augment.rotate, black, chance[:, 3])
    if augment.shift or augment.flip:
        x = _moved(x, augment.shift, augment.flip, black, chance[:, 4:7])
    if augment.erase:
        x = torch.where(_erased(x, augment.erase, chance[:, 7:11]), black, x)
    return x


def _moved(x: Tensor, pad: int, flip: float, black: Tensor, chance: Tensor) -> Tensor:
    """Shift and flip: each row and column of the result is a row and column of the padded image."""
    n, _, height, width = x.shape
    moved = (F.pad(x - black, (pad, pad, pad, pad)) + black) if pad else x
    offsets = (chance[:, :2] * (2 * pad + 1)).long()
    rows = torch.arange(height, device=x.device) + offsets[:, :1]
    columns = torch.arange(width, device=x.device)
    mirrored = chance[:, 2:] < flip
    columns = torch.where(mirrored, width - 1 - columns, columns) + offsets[:, 1:2]
    images = torch.arange(n, device=x.device).view(n, 1, 1)
    # Indexed with the channels last, which is the order of the images in memory.
    result = moved.permute(0, 2, 3, 1)[images, rows.view(n, height, 1), columns.view(n, 1, width)]
    return result.permute(0, 3, 1, 2)


def _rotated(x: Tensor, degrees: float, black: Tensor, chance: Tensor) -> Tensor:
    angle = (2 * chance - 1) * math.radians(degrees)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    ratio = x.shape[2] / x.shape[3]  # the grid's unit is half the image, both ways
    turned = torch.stack(
        [torch.stack([cosine, -sine * ratio, zero], 1), torch.stack([sine / ratio, cosine, zero], 1)], 1
    )
    grid = F.affine_grid(turned.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x - black, grid, align_corners=False) + black


def _erased(x: Tensor, probability: float, chance: Tensor) -> Tensor:
    """Return the mask of erased pixels: bool [N, 1, H, W]."""
    _, _, height, width = x.shape
    area = (ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * chance[:, 0]) * height * width
    low, high = (math.log(aspect) for aspect in ERASE_ASPECT)
    # One random number decides whether the image is erased and, scaled, the aspect ratio.
    aspect = (low + (high - low) * (chance[:, 1] / max(probability, 1e-9)).clamp(max=1)).exp()
    tall = (area / aspect).sqrt().round().clamp(1, height)
    wide = (area * aspect).sqrt().round().clamp(1, width)
    top, left = (chance[:, 2] * (height - tall + 1)).floor(), (chance[:, 3] * (width - wide + 1)).floor()
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    inside = in_rows[:, :, None] & in_columns[:, None, :]
    return (inside & (chance[:, 1] < probability)[:, None, None]).unsqueeze(1)


def _jittered(x: Tensor, strength: float, black: Tensor, chance: Tensor) -> Tensor:
    """Change brightness, contrast and saturation; unlike torchvision, without clipping at black or white."""
    factors = (1 + (2 * chance - 1) * strength).to(x.dtype).view(-1, 3, 1, 1, 1).unbind(1)
    brightness, contrast, saturation = factors
    x = (x - black) * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    if x.shape[1] > 1:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * saturation
    return x + black
