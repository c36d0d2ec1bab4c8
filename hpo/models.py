"""Networks: from a config to a plain `nn.Module`.

Shapes: N batch, C channels, H height, W width, F features.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from hpo.config import CNN, MLP, Network, check_fits

InputShape = tuple[int, ...]
"""(F,) for a table, (C, H, W) for images."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class MLPClassifier(nn.Module):
    """[N, ...] -> [N, classes]: flatten; per hidden layer linear, norm, activation, dropout; then linear."""

    def __init__(self, config: MLP, features: int, classes: int) -> None:
        super().__init__()
        layers = []
        for width, rate in zip(config.widths, config.dropout, strict=True):
            parts: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(features, width))
            if config.norm != "none":
                parts["norm"] = nn.BatchNorm1d(width) if config.norm == "batch" else nn.LayerNorm(width)
            parts["activation"] = ACTIVATIONS[config.activation]()
            if rate > 0:
                parts["dropout"] = nn.Dropout(rate)
            layers.append(nn.Sequential(parts))
            features = width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.hidden(x.flatten(1)))
        return logits


class CNNClassifier(nn.Module):
    """[N, C, H, W] -> [N, classes]: stages of convolutions that each halve the image, then a head."""

    def __init__(self, config: CNN, input_shape: InputShape, classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        stages = []
        for out_channels, rate in zip(config.channels, config.dropout, strict=True):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            for i in range(config.convs):
                conv = nn.Conv2d(channels, out_channels, config.kernel, padding=config.kernel // 2)
                parts[f"conv{i}"] = conv
                if config.norm != "none":
                    norm = nn.BatchNorm2d if config.norm == "batch" else _channel_layer_norm
                    parts[f"norm{i}"] = norm(out_channels)
                parts[f"activation{i}"] = ACTIVATIONS[config.activation]()
                channels = out_channels
            parts["pool"] = nn.MaxPool2d(2) if config.pool == "max" else nn.AvgPool2d(2)
            if rate > 0:
                parts["dropout"] = nn.Dropout2d(rate)
            stages.append(nn.Sequential(parts))
            height, width = height // 2, width // 2
        self.stages = nn.Sequential(*stages)

        head: OrderedDict[str, nn.Module] = OrderedDict()
        if config.head == "average":
            head["average"] = nn.AdaptiveAvgPool2d(1)
        head["flatten"] = nn.Flatten()
        features = channels if config.head == "average" else channels * height * width
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


def _channel_layer_norm(channels: int) -> nn.Module:
    """Layer norm over all channels and pixels of an image: group norm with one group."""
    return nn.GroupNorm(1, channels)


def build_model(config: Network, input_shape: InputShape, classes: int, seed: int | None = None) -> nn.Module:
    """Build the network on the CPU (or on the device of a surrounding `torch.device`), in torch's default init.

    With a seed the initial weights follow from it alone, and torch's global generator is left as it was.
    Raises: ModelError where the inputs do not fit the network.
    """
    check_fits(config, input_shape)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if isinstance(config, CNN):
            return CNNClassifier(config, input_shape, classes)
        return MLPClassifier(config, torch.Size(input_shape).numel(), classes)


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
