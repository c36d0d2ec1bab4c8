"""The layers of a network as Python code."""

from torch import nn

from hpo.models import ACTIVATIONS, POOLS, Residual

_WITHOUT_ARGUMENTS = (*ACTIVATIONS.values(), nn.Flatten, nn.Identity)


def layers(model: nn.Module, *, flatten: bool) -> list[str]:
    """Return the lines of code that build the layers of a network; with `flatten`, inputs are flattened first."""
    lines = ["nn.Flatten(),"] if flatten else []
    return [*lines, *(line for child in model.children() for line in _lines(child))]


def _lines(module: nn.Module) -> list[str]:
    if isinstance(module, nn.Sequential):
        return [line for child in module for line in _lines(child)]
    if isinstance(module, Residual):
        body = [f"        {line}" for line in _lines(module.body)]
        [skip] = _lines(module.skip)
        return ["Residual(", "    nn.Sequential(", *body, "    ),", f"    {skip}", "),"]
    return [f"nn.{type(module).__name__}({_arguments(module)}),"]


def _arguments(module: nn.Module) -> str:
    """Return the arguments with which `hpo.models` makes a layer. Raises: TypeError for other layers."""
    match module:
        case nn.Linear():
            return f"{module.in_features}, {module.out_features}" + (", bias=False" if module.bias is None else "")
        case nn.Conv2d():
            padding = f", padding={module.padding[0]}" if module.padding[0] else ""
            bias = ", bias=False" if module.bias is None else ""
            return f"{module.in_channels}, {module.out_channels}, {module.kernel_size[0]}{padding}{bias}"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return f"{module.num_features}"
        case nn.LayerNorm():
            return f"{module.normalized_shape[0]}"
        case nn.GroupNorm():
            return f"{module.num_groups}, {module.num_channels}"
        case nn.Dropout() | nn.Dropout2d():
            return f"{module.p!r}"
        case nn.AdaptiveAvgPool2d():
            return f"{module.output_size!r}"
    if isinstance(module, tuple(POOLS.values())):
        return f"{module.kernel_size!r}"
    if isinstance(module, _WITHOUT_ARGUMENTS):
        return ""
    raise TypeError(f"{type(module).__name__} is not a layer of hpo.models")
