"""A network as the Python that makes it."""

import re

from torch import nn

from hpo.models import Residual

_DEFAULTS = re.compile(
    r", (bias=True|inplace=False|eps=1e-05|momentum=0\.1|affine=True|track_running_stats=True|dilation=1"
    r"|elementwise_affine=True|ceil_mode=False|stride=\(1, 1\)|padding=0|padding=\(0, 0\))(?=[,)])"
)


def layers(model: nn.Module, *, flatten: bool) -> list[str]:
    """Return the network's layers, each as lines of Python."""
    lines = ["nn.Flatten(),"] if flatten else []
    return [*lines, *(line for child in model.children() for line in _lines(child))]


def _lines(module: nn.Module) -> list[str]:
    """Return a module as the lines that make it; torch's own description of a layer is the call that makes it."""
    if isinstance(module, nn.Sequential):
        return [line for child in module for line in _lines(child)]
    if isinstance(module, Residual):
        body = [f"        {line}" for line in _lines(module.body)]
        [skip] = _lines(module.skip)
        return ["Residual(", "    nn.Sequential(", *body, "    ),", f"    {skip}", "),"]
    text = (
        _DEFAULTS.sub("", repr(module)).replace("(approximate='none')", "()").replace("(start_dim=1, end_dim=-1)", "()")
    )
    return [f"nn.{text},"]
