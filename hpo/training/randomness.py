"""Random numbers without state: data order and dropout are functions of (seed, epoch, layer) alone.

Therefore a trial gives the same curve when it is trained by itself, together with others, or resumed after a crash.
Each stream of random numbers has its own generator, seeded by a hash of the stream's name. Dropout uses one random
byte per unit, which takes a sixth of the time of `nn.Dropout` on a CPU and rounds its rate to the nearest 1/256.
"""

import hashlib
import struct

import torch
from torch import Tensor, nn

_CHUNK = 2**20
"""Random bytes drawn in one call: enough to make the call's overhead small, few enough to stay in the cache."""


def generator(device: torch.device | str, stream: str, *numbers: int) -> torch.Generator:
    """Return a generator whose seed is determined by the stream's name and numbers."""
    name = stream.encode() + struct.pack(f"<{len(numbers)}q", *numbers)
    seed = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=False) >> 1
    return torch.Generator(device=device).manual_seed(seed)


def data_order(seed: int, epoch: int, rows: int, device: torch.device) -> Tensor:
    """Return the order in which an epoch visits the training rows: int64 [rows]."""
    return torch.randperm(rows, generator=generator(device, "order", seed, epoch), device=device)


def random_bytes(count: int, source: torch.Generator) -> Tensor:
    """Return uint8 [count], uniform, drawn eight at a time."""
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=source.device)
    return words.random_(-(2**63), None, generator=source).view(torch.uint8)[:count]


def steps_per_draw(units: int) -> int:
    """Return the number of steps for which `dropout_bytes` draws at once, if a batch has so many units."""
    return max(1, _CHUNK // units)


def dropout_bytes(seed: int, epoch: int, layer: int, *, first: int, units: int, device: torch.device) -> Tensor:
    """Draw a layer's bytes for `steps_per_draw(units)` steps from `first` on: uint8 [steps * units].

    `first`, which must be a multiple of the number of steps, is part of the stream's name.
    """
    source = generator(device, "dropout", seed, epoch, layer, first)
    return random_bytes(steps_per_draw(units) * units, source)


def drop_threshold(rate: float) -> tuple[int, float]:
    """Return the smallest byte at which a unit is kept, and the factor of a kept unit."""
    threshold = round(rate * 256)
    return threshold, 256 / (256 - threshold) if threshold < 256 else 0.0


class StatelessDropout(nn.Module):
    """Dropout whose masks are a function of (seed, epoch, layer, step).

    It replaces `nn.Dropout` and `nn.Dropout2d` while a network is trained, and has no parameters, so that state dicts
    stay the same. With a step counter on the device (`counter`), the bytes of a whole epoch are in one tensor, and the
    forward pass selects those of the step by the counter: then it does not depend on Python values, and a CUDA graph
    of it can be replayed. Both variants use the same bytes.
    """

    def __init__(self, rate: float, layer: int, *, whole_channels: bool) -> None:
        """`layer` is the number of the dropout in the network; `whole_channels` drops channels instead of pixels."""
        super().__init__()
        self.layer = layer
        self.whole_channels = whole_channels
        self.threshold, self.scale = drop_threshold(rate)
        self.counter: Tensor | None = None
        self._seed = self._epoch = self._steps = self._batch = 0
        self._step = self._offset = 0
        """Position of the next forward pass in the epoch: the step, and the row of its batch."""
        self._first = 0
        self._masks: Tensor | None = None
        """Of the steps from `_first` on: [steps, batch, ...]."""
        self._epoch_bytes: Tensor | None = None

    def start_epoch(self, seed: int, epoch: int, steps: int, batch: int) -> None:
        """Start the masks of an epoch; each forward pass in training mode then uses the next rows."""
        self._seed, self._epoch, self._steps, self._batch = seed, epoch, steps, batch
        self._step = self._offset = 0
        self._masks = None
        if self._epoch_bytes is not None:
            self._fill(self._epoch_bytes)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x by the mask of the step in training mode; return it unchanged in evaluation mode."""
        if not self.training or self.threshold == 0:
            return x
        shape = (self._batch, x.shape[1], 1, 1) if self.whole_channels else (self._batch, *x.shape[1:])
        masks = self._step_mask(x, shape) if self.counter is None else self._counted_mask(x, shape, self.counter)
        mask = masks[self._offset : self._offset + len(x)]
        self._offset += len(x)
        if self._offset >= self._batch:
            self._step, self._offset = self._step + 1, 0
        return x * mask

    def _step_mask(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self._masks is None or self._step - self._first >= len(self._masks):
            drawn = self._draw(self._step, torch.Size(shape).numel(), x.device)
            self._masks, self._first = self._to_mask(drawn, x.dtype).view(-1, *shape), self._step
        return self._masks[self._step - self._first]

    def _counted_mask(self, x: Tensor, shape: tuple[int, ...], counter: Tensor) -> Tensor:
        if self._epoch_bytes is None:
            units = torch.Size(shape).numel()
            self._epoch_bytes = torch.empty(self._steps, units, dtype=torch.uint8, device=x.device)
            self._fill(self._epoch_bytes)
        return self._to_mask(self._epoch_bytes.index_select(0, counter), x.dtype).view(shape)

    def _to_mask(self, drawn: Tensor, dtype: torch.dtype) -> Tensor:
        return (drawn >= self.threshold).to(dtype).mul_(self.scale)

    def _fill(self, epoch_bytes: Tensor) -> None:
        steps, units = epoch_bytes.shape
        first = 0
        while first < steps:
            chunk = self._draw(first, units, epoch_bytes.device).view(-1, units)
            epoch_bytes[first : first + len(chunk)] = chunk[: steps - first]
            first += len(chunk)

    def _draw(self, first: int, units: int, device: torch.device) -> Tensor:
        return dropout_bytes(self._seed, self._epoch, self.layer, first=first, units=units, device=device)


def make_dropout_stateless(model: nn.Module) -> list[StatelessDropout]:
    """Replace every dropout of a model by `StatelessDropout`; return them in order."""
    replaced: list[StatelessDropout] = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout | nn.Dropout2d):
                new = StatelessDropout(child.p, len(replaced), whole_channels=isinstance(child, nn.Dropout2d))
                setattr(parent, name, new)
                replaced.append(new)
    return replaced
