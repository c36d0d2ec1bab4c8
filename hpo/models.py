"""Networks: from a config to a plain `nn.Module`.

Shapes: N batch, C channels, H height, W width, F features.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hpo import user_code
from hpo.config import CNN, MLP, Init, Network, PythonNetwork, check_fits
from hpo.errors import ModelError

InputShape = tuple[int, ...]
"""(F,) for a table, (C, H, W) for images."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "xavier": nn.init.xavier_uniform_,
    "kaiming": nn.init.kaiming_normal_,
    "orthogonal": nn.init.orthogonal_,
}


class Residual(nn.Module):
    """Adds what goes in, through `skip`, to what the body makes of it."""

    def __init__(self, body: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.body, self.skip = body, skip

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x) + self.skip(x)
        return total


class MLPClassifier(nn.Module):
    """[N, ...] -> [N, classes]: flatten; per hidden layer linear, norm, activation, dropout; then linear."""

    def __init__(self, config: MLP, features: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, rate in zip(config.widths, config.dropout, strict=True):
            parts: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(features, width))
            if config.norm != "none":
                parts["norm"] = nn.BatchNorm1d(width) if config.norm == "batch" else nn.LayerNorm(width)
            parts["activation"] = ACTIVATIONS[config.activation]()
            if rate > 0:
                parts["dropout"] = nn.Dropout(rate)
            layer: nn.Module = nn.Sequential(parts)
            if config.residual and layers:
                skip = nn.Identity() if features == width else nn.Linear(features, width, bias=False)
                layer = Residual(layer, skip)
            layers.append(layer)
            features = width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.hidden(x.flatten(1)))
        return logits


class CNNClassifier(nn.Module):
    """[N, C, H, W] -> [N, classes]: stages of convolutions, most of which halve the image, then a head."""

    def __init__(self, config: CNN, input_shape: InputShape, classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        stages = []
        for i, out_channels in enumerate(config.channels):
            parts = _convolutions(config, config.convs[i], channels, out_channels)
            if config.residual and i > 0:
                project = channels != out_channels
                skip = nn.Conv2d(channels, out_channels, 1, bias=False) if project else nn.Identity()
                parts = OrderedDict(residual=Residual(nn.Sequential(parts), skip))
            if config.pool[i] != "none":
                parts["pool"] = POOLS[config.pool[i]](2)
                height, width = height // 2, width // 2
            if config.dropout[i] > 0:
                parts["dropout"] = nn.Dropout2d(config.dropout[i])
            stages.append(nn.Sequential(parts))
            channels = out_channels
        self.stages = nn.Sequential(*stages)

        head: OrderedDict[str, nn.Module] = OrderedDict()
        if config.head == "average":
            head["average"] = nn.AdaptiveAvgPool2d(config.head_size)
            height = width = config.head_size
        head["flatten"] = nn.Flatten()
        features = channels * height * width
        if config.head_width > 0:
            head["linear"] = nn.Linear(features, config.head_width)
            head["activation"] = ACTIVATIONS[config.activation]()
            features = config.head_width
        if config.head_dropout > 0:
            head["dropout"] = nn.Dropout(config.head_dropout)
        head["output"] = nn.Linear(features, classes)
        self.head = nn.Sequential(head)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(x))
        return logits


def _convolutions(config: CNN, count: int, channels: int, out_channels: int) -> OrderedDict[str, nn.Module]:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(count):
        parts[f"conv{i}"] = nn.Conv2d(channels, out_channels, config.kernel, padding=config.kernel // 2)
        if config.norm != "none":
            norm = nn.BatchNorm2d if config.norm == "batch" else _channel_layer_norm
            parts[f"norm{i}"] = norm(out_channels)
        parts[f"activation{i}"] = ACTIVATIONS[config.activation]()
        channels = out_channels
    return parts


def _channel_layer_norm(channels: int) -> nn.Module:
    """Layer norm over all channels and pixels of an image: group norm with one group."""
    return nn.GroupNorm(1, channels)


def initialise(model: nn.Module, init: Init) -> None:
    """Draw the weights of linear layers and convolutions anew, biases 0; `default` leaves them as torch made them.

    Gains are those of a linear layer for Xavier and orthogonal, of ReLU for Kaiming: torch.nn.init's defaults.
    """
    if init == "default" or any(p.is_meta for p in model.parameters()):
        return
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            INITS[init](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_model(config: Network, input_shape: InputShape, classes: int, seed: int | None = None) -> nn.Module:
    """Build the network on the CPU (or on the device of a surrounding `torch.device`).

    With a seed the initial weights follow from it alone, and torch's global generator is left as it was.
    Raises: ModelError where the inputs do not fit the network.
    """
    check_fits(config, input_shape)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model: nn.Module
        if isinstance(config, PythonNetwork):
            return _own(config, input_shape, classes)
        if isinstance(config, CNN):
            model = CNNClassifier(config, input_shape, classes)
        else:
            model = MLPClassifier(config, torch.Size(input_shape).numel(), classes)
        initialise(model, config.init)
        return model


def _own(config: PythonNetwork, input_shape: InputShape, classes: int) -> nn.Module:
    """Build a network by the user's own function, and try it on two rows of zeros."""
    build, where = user_code.load_function(config.python, config.digest), config.python
    try:
        model = build(dict(config.params), input_shape, classes)
    except Exception as error:
        raise ModelError(
            f"{where}: failed with {user_code.one_line(error)} for params {config.params}. Mend it."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{where}: must return a torch.nn.Module, got {type(model).__name__}. Mend it.")
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, *input_shape))
    except Exception as error:
        raise ModelError(
            f"{where}: its network must take [rows, {', '.join(map(str, input_shape))}], "
            f"got {user_code.one_line(error)}. Mend it."
        ) from error
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [2, classes]:
        raise ModelError(f"{where}: its network must give logits [2, {classes}] for 2 rows, got {shape}. Mend it.")
    return model.train()


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
