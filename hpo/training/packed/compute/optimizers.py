"""The optimizer step of all slots, each with its own optimizer, learning rate and step count.

Two implementations of the same arithmetic. `VectorizedStep` computes SGD (plain, momentum, Nesterov), Adam, AdamW and
RMSprop by one formula with eleven coefficients per slot: 14 kernels for any mix of optimizers, which a graph can
record. `FusedStep` calls torch's fused kernels slot by slot: on a CPU one pass over memory instead of ten.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import SGD, Adam, AdamW, Optimizer, RMSprop, SGDMomentum
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.torch_compat import fused_adam, fused_sgd, rmsprop

CONSTANT = (
    "decay",  # g <- g + decay p
    "keep1",  # first <- keep1 first + take1 g
    "take1",
    "keep2",  # second <- keep2 second + take2 g^2
    "take2",
    "direct",  # u <- direct g + lead first: direct is 1 for Nesterov momentum
    "lead",
    "eps",
)
"""Coefficients of a slot that are the same at every step."""
CHANGING = (
    "shrink",  # p <- shrink p: decoupled weight decay
    "root",  # p <- p - size u / (root sqrt(second) + eps)
    "size",
)
"""Coefficients of a slot that follow from the learning rate and the number of the step."""


class _Rule(NamedTuple):
    """From what a slot's coefficients are computed."""

    constant: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    shrink: float = 0.0
    """Times the learning rate: what decoupled weight decay takes off."""
    beta1: float = 0.0
    beta2: float = 0.0
    """Adam's corrections of the moments, by 1 - beta^step; 0 for none."""
    root: float = 0.0
    size: float = 0.0


def _rule(config: Optimizer | None) -> _Rule:
    """Return the rule of an optimizer, by the formulas of torch.optim; None, for an empty slot, changes nothing."""
    if config is None:
        return _Rule()
    wd = config.weight_decay
    match config:
        case SGD():
            return _Rule((wd, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0), size=1.0)
        case SGDMomentum():
            direct, lead = (1.0, config.momentum) if config.nesterov else (0.0, 1.0)
            return _Rule((wd, config.momentum, 1.0, 0.0, 0.0, direct, lead, 1.0), size=1.0)
        case Adam() | AdamW():
            decay, shrink = (0.0, wd) if isinstance(config, AdamW) else (wd, 0.0)
            moments = (config.beta1, 1 - config.beta1, config.beta2, 1 - config.beta2)
            constant = (decay, *moments, 0.0, 1.0, config.eps)
            return _Rule(constant, shrink, config.beta1, config.beta2, root=1.0, size=1.0)
        case RMSprop():
            moments = (0.0, 1.0, config.alpha, 1 - config.alpha)
            return _Rule((wd, *moments, 0.0, 1.0, config.eps), root=1.0, size=1.0)


class Moments:
    """The state of the optimizers of all slots: two blocks of moments, and the number of steps taken."""

    def __init__(self, params: Blocks, configs: Sequence[Optimizer]) -> None:
        like = params.vectors
        self.configs: list[Optimizer | None] = list(configs)
        """Config of each slot's optimizer; None where the slot is empty."""
        self.first = Blocks(params.layout, like.dtype, like.device)
        """Momentum, or the running mean of the gradient."""
        self.second = Blocks(params.layout, like.dtype, like.device)
        """The running mean of the squared gradient."""
        self.steps = [0] * len(configs)

    def stored(self, slot: int) -> dict[str, Blocks]:
        """Return the moments that torch's optimizer would store for this slot, by torch's names."""
        match self.configs[slot]:
            case SGDMomentum(momentum=momentum) if momentum > 0:
                return {"momentum_buffer": self.first}
            case Adam() | AdamW():
                return {"exp_avg": self.first, "exp_avg_sq": self.second}
            case RMSprop():
                return {"square_avg": self.second}
        return {}

    def counts_steps(self, slot: int) -> bool:
        """Return whether torch's optimizer would store the number of steps."""
        return isinstance(self.configs[slot], Adam | AdamW | RMSprop)

    def save(self, slot: int) -> dict[str, Tensor]:
        """Return copies of a slot's state, by the names of the solo engine."""
        saved: dict[str, Tensor] = {}
        if self.steps[slot] == 0:
            return saved
        views = {name: list(blocks.views(slot).values()) for name, blocks in self.stored(slot).items()}
        for index in range(len(self.first.views(slot))):
            if self.counts_steps(slot):
                saved[f"optimizer.{index}.step"] = torch.tensor(float(self.steps[slot]), dtype=torch.float32)
            for name, parts in views.items():
                saved[f"optimizer.{index}.{name}"] = parts[index].clone()
        return saved

    def replace(self, slot: int, config: Optimizer | None) -> None:
        """Give a slot the optimizer of another trial, in its initial state."""
        self.configs[slot], self.steps[slot] = config, 0
        self.first.clear(slot)
        self.second.clear(slot)

    def load(self, slot: int, tensors: dict[str, Tensor], steps: int) -> None:
        """Restore a slot's state after `steps` steps from what `save`, or the solo engine, returned."""
        self.steps[slot] = steps
        for name, blocks in self.stored(slot).items():
            for index, view in enumerate(blocks.views(slot).values()):
                if steps:
                    view.copy_(tensors[f"optimizer.{index}.{name}"])


class Step(Protocol):
    """Takes the optimizer step of every slot."""

    def __call__(self, lrs: Sequence[float]) -> None:
        """Update all parameters by their gradients; `lrs` are the learning rates of the slots."""
        ...


class Clipping:
    """Scales each member's gradient down to the member's maximum norm, where it is larger."""

    def __init__(self, grads: Blocks, norms: Sequence[float | None]) -> None:
        like = grads.vectors
        self.grads = grads
        self.limits = torch.zeros(len(norms), dtype=like.dtype, device=like.device)
        for slot, norm in enumerate(norms):
            self.replace(slot, norm)

    def replace(self, slot: int, norm: float | None) -> None:
        """Set the maximum norm of a slot's gradient; None for no maximum."""
        self.limits[slot] = float("inf") if norm is None else norm

    def __call__(self) -> None:
        """Scale the gradients of each slot down to its limit."""
        if self.grads.slab is not None:
            squares = self.grads.slab.square().sum(1)
        else:
            squares = torch.zeros_like(self.limits)
            for block, start, stop in self.grads.blocks():
                squares[start:stop] += block.flatten(1).square().sum(1)
        # torch.nn.utils.clip_grad_norm_'s formula, its 1e-6 included.
        factors = (self.limits / (squares.sqrt() + 1e-6)).clamp_(max=1.0)
        for block, start, stop in self.grads.blocks():
            block.flatten(1).mul_(factors[start:stop].unsqueeze(1))


class VectorizedStep:
    """Takes the steps of all slots at once, by one formula."""

    def __init__(self, params: Blocks, grads: Blocks, moments: Moments) -> None:
        self.moments = moments
        blocks = zip(params.blocks(), grads.tensors(), moments.first.tensors(), moments.second.tensors(), strict=True)
        self._blocks = [(p, g, m, v, start, stop) for (p, start, stop), g, m, v in blocks]
        like = params.vectors
        self.constant = torch.zeros(len(moments.configs), len(CONSTANT), dtype=like.dtype, device=like.device)
        self._rules = np.zeros((5, len(moments.configs)))
        for slot, config in enumerate(moments.configs):
            self.replace(slot, config)

    def replace(self, slot: int, config: Optimizer | None) -> None:
        """Give a slot the coefficients of another optimizer; None for an empty slot."""
        constant, *rule = _rule(config)
        self.constant[slot] = torch.tensor(constant, dtype=torch.float64)
        self._rules[:, slot] = rule

    def table(self, lrs: NDArray[np.float64]) -> Tensor:
        """Return the coefficients that change, for the next steps with these learning rates [steps, S].

        They are computed in float64, on the CPU: [steps, S, 3].
        """
        shrink, beta1, beta2, root, size = self._rules
        steps = np.array(self.moments.steps) + 1 + np.arange(len(lrs))[:, None]
        columns = (1 - lrs * shrink, root / np.sqrt(1 - beta2**steps), size * lrs / (1 - beta1**steps))
        return torch.from_numpy(np.stack(columns, 2))

    def __call__(self, lrs: Sequence[float]) -> None:
        """Do the step of all slots, each with its learning rate."""
        like = self.constant
        self.apply(self.table(np.array([lrs]))[0].to(like.dtype).to(like.device))
        self.moments.steps = [step + 1 for step in self.moments.steps]

    def apply(self, changing: Tensor) -> None:
        """Take a step by the coefficients that change, [S, 3]; the caller updates the step counts."""
        for p, g, m, v, start, stop in self._blocks:
            shape = (stop - start, *[1] * (p.dim() - 1))
            columns = (*self.constant[start:stop].unbind(1), *changing[start:stop].unbind(1))
            decay, keep1, take1, keep2, take2, direct, lead, eps, shrink, root, size = (c.view(shape) for c in columns)
            g.addcmul_(p, decay)
            p.mul_(shrink)
            m.mul_(keep1).addcmul_(g, take1)
            v.mul_(keep2).addcmul_(g * take2, g)
            direction = (m * lead).addcmul_(g, direct)
            p.addcdiv_(direction.mul_(size), v.sqrt().mul_(root).add_(eps), value=-1)


class FusedStep:
    """Takes the steps slot by slot, with the kernels that torch.optim calls with `fused=True`."""

    def __init__(self, params: Blocks, grads: Blocks, moments: Moments) -> None:
        self.moments = moments
        sides = (params, grads, moments.first, moments.second)
        self._pieces = [tuple(side.pieces(slot) for side in sides) for slot in range(params.layout.slots)]
        self._counts = [torch.zeros((), dtype=torch.float32) for _ in self._pieces]

    def __call__(self, lrs: Sequence[float]) -> None:
        """Do the step of each slot, with its learning rate."""
        moments = self.moments
        for slot, (config, lr) in enumerate(zip(moments.configs, lrs, strict=True)):
            moments.steps[slot] += 1
            p, g, m, v = self._pieces[slot]
            match config:
                case SGD():
                    fused_sgd(p, g, m, lr=lr, momentum=0.0, nesterov=False, weight_decay=config.weight_decay)
                case SGDMomentum(momentum=momentum, nesterov=nesterov):
                    decay = config.weight_decay
                    fused_sgd(p, g, m, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)
                case Adam() | AdamW():
                    fused_adam(
                        p,
                        g,
                        m,
                        v,
                        self._counts[slot].fill_(moments.steps[slot]),
                        lr=lr,
                        betas=(config.beta1, config.beta2),
                        eps=config.eps,
                        weight_decay=config.weight_decay,
                        decoupled=isinstance(config, AdamW),
                    )
                case RMSprop(alpha=alpha, eps=eps):
                    rmsprop(p, g, v, lr=lr, alpha=alpha, eps=eps, weight_decay=config.weight_decay)
