"""Networks: from a config to a plain `nn.Module`.

Shapes: N batch, C channels, H height, W width, F features.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

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
    """Adds the input, passed through `skip`, to the output of the body."""

    def __init__(self, body: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.body, self.skip = body, skip

    def forward(self, x: Tensor) -> Tensor:
        """Return body(x) + skip(x)."""
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
        """Return the logits of rows or images."""
        logits: Tensor = self.output(self.hidden(x.flatten(1)))
        return logits


class CNNClassifier(nn.Module):
    """[N, C, H, W] -> [N, classes]: stages of convolutions, most of which halve the image, then a head."""

    def __init__(self, config: CNN, input_shape: InputShape, classes: int) -> None:
        super().__init__()
        channels = (input_shape[0], *config.channels)
        self.stages = nn.Sequential(*(_stage(config, i, channels[i]) for i in range(len(config.channels))))
        height, width = _head_size(config, input_shape)
        self.head = nn.Sequential(_head(config, channels[-1] * height * width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images."""
        logits: Tensor = self.head(self.stages(x))
        return logits


def _stage(config: CNN, index: int, channels: int) -> nn.Sequential:
    """Return a stage: convolutions, around them the residual connection if any, pooling, dropout."""
    out_channels = config.channels[index]
    parts = _convolutions(config, config.convs[index], channels, out_channels)
    if config.residual and index > 0:
        project = channels != out_channels
        skip = nn.Conv2d(channels, out_channels, 1, bias=False) if project else nn.Identity()
        parts = OrderedDict(residual=Residual(nn.Sequential(parts), skip))
    if config.pool[index] != "none":
        parts["pool"] = POOLS[config.pool[index]](2)
    if config.dropout[index] > 0:
        parts["dropout"] = nn.Dropout2d(config.dropout[index])
    return nn.Sequential(parts)


def _head_size(config: CNN, input_shape: InputShape) -> tuple[int, int]:
    """Return height and width of the image whose pixels are the features of the head."""
    if config.head == "average":
        return config.head_size, config.head_size
    return input_shape[1] // 2**config.halvings, input_shape[2] // 2**config.halvings


def _head(config: CNN, features: int, classes: int) -> OrderedDict[str, nn.Module]:
    """Return the layers after the stages, for so many features after flattening."""
    head: OrderedDict[str, nn.Module] = OrderedDict()
    if config.head == "average":
        head["average"] = nn.AdaptiveAvgPool2d(config.head_size)
    head["flatten"] = nn.Flatten()
    if config.head_width > 0:
        head["linear"] = nn.Linear(features, config.head_width)
        head["activation"] = ACTIVATIONS[config.activation]()
        features = config.head_width
    if config.head_dropout > 0:
        head["dropout"] = nn.Dropout(config.head_dropout)
    head["output"] = nn.Linear(features, classes)
    return head


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
    """Initialize weights of linear layers and convolutions, biases as 0; `default` keeps torch's own initial values.

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
            return _build_python(config, input_shape, classes)
        if isinstance(config, CNN):
            model = CNNClassifier(config, input_shape, classes)
        else:
            model = MLPClassifier(config, torch.Size(input_shape).numel(), classes)
        initialise(model, config.init)
        return model


def _build_python(config: PythonNetwork, input_shape: InputShape, classes: int) -> nn.Module:
    """Build a network by the user's function, and check its output for two rows of zeros."""
    build, where = user_code.load_function(config.python, config.digest), config.python
    try:
        model = build(dict(config.params), input_shape, classes)
    except Exception as error:
        raise ModelError(
            f"{where}: failed with {user_code.one_line(error)} for params {config.params}. Fix the function."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{where}: must return a torch.nn.Module, got {type(model).__name__}. Fix the function.")
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, *input_shape))
    except Exception as error:
        raise ModelError(
            f"{where}: its network must take [rows, {', '.join(map(str, input_shape))}], "
            f"got {user_code.one_line(error)}. Fix the network."
        ) from error
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [2, classes]:
        raise ModelError(
            f"{where}: its network must return logits [2, {classes}] for 2 rows, got {shape}. Fix the network."
        )
    return model.train()


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def layer_products(config: MLP | CNN, input_shape: InputShape, classes: int) -> list[int]:
    """Return the number of multiply-adds of each linear layer and convolution for one row, without building any.

    Raises: ModelError where the inputs do not fit the network.
    """
    check_fits(config, input_shape)
    if isinstance(config, MLP):
        sizes = (torch.Size(input_shape).numel(), *config.widths)
        products = [a * b for a, b in pairwise(sizes)]
        if config.residual:
            products += [a * b for a, b in list(pairwise(sizes))[1:] if a != b]
        return [*products, sizes[-1] * classes]
    products, (channels, height, width) = [], input_shape
    for i, out_channels in enumerate(config.channels):
        pixels, taps = height * width, config.kernel**2
        if config.residual and i > 0 and channels != out_channels:
            products.append(pixels * out_channels * channels)
        products.append(pixels * out_channels * channels * taps)
        products += [pixels * out_channels**2 * taps] * (config.convs[i] - 1)
        if config.pool[i] != "none":
            height, width = height // 2, width // 2
        channels = out_channels
    height, width = _head_size(config, input_shape)
    dense = [channels * height * width, *([config.head_width] if config.head_width else []), classes]
    return products + [a * b for a, b in pairwise(dense)]
