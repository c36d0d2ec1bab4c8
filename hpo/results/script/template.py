"""Templates of an exported script: the parts that are the same in all scripts."""

from string import Template

SCRIPT = Template('''\
"""$title

$summary
$origin
    python THIS_FILE [--data FOLDER] [--device cuda]

Written by `hpo export --as script`; it needs $needs.
"""

import argparse
import copy
import math
${sequence}${dataclass}
import torch
import torch.nn.functional as F
from torch import ${tensor}nn
$imports

EPOCHS = $epochs
BATCH_SIZE = $batch_size
LEARNING_RATE = $lr
VALIDATION_ROWS = $validation
SEED = $seed

$definitions
class Net(nn.Module):
    """$shape -> [N, $classes] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
$layers
        )
$init
    def forward(self, x):
        return self.layers(x)


$loading


def learning_rate(step, steps, losses):
    """Return the learning rate at a step (from 0) of all steps, given the validation losses so far."""
    return $learning_rate


def predict(net, x):
    """Return the logits of rows, in evaluation mode."""
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(part) for part in x.split(1000)])


def evaluate(net, x, y):
    """Return accuracy and loss."""
    logits = predict(net, x)
    return (logits.argmax(1) == y).float().mean().item(), F.cross_entropy(logits, y).item()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--data", default="data", help="folder of the data set")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = arguments.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(SEED)

    x, y, test_x, test_y = load(options.data)
    rows = torch.randperm(len(y))
    validation, training = rows[:VALIDATION_ROWS], rows[VALIDATION_ROWS:]
    axes = $axes
    mean, std = x[training].mean(axes, keepdim=True), x[training].std(axes, keepdim=True)
    std = torch.where(std > 0, std, torch.ones_like(std))
    x, test_x = ((part - mean) / std for part in (x, test_x))
$prepare    train_x, train_y = x[training].to(device), y[training].to(device)
    validation_x, validation_y = x[validation].to(device), y[validation].to(device)
    test_x, test_y = test_x.to(device), test_y.to(device)

    net = Net().to(device)
$averaged    optimizer = $optimizer
    batch_size = min(BATCH_SIZE, len(train_y))
    steps = len(train_y) // batch_size
    losses = []
$weights$before    for epoch in range(EPOCHS):
        net.train()
        order = torch.randperm(len(train_y), device=device)
$augment        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate(epoch * steps + step, EPOCHS * steps, losses)
            batch = order[step * batch_size : (step + 1) * batch_size]
            with torch.autocast(device.type, torch.bfloat16, enabled=$bf16):
                logits = net($rows[batch])
            loss = F.cross_entropy(logits.float(), train_y[batch]$options)
            optimizer.zero_grad()
            loss.backward()
$clip            optimizer.step()
$average        accuracy, validation_loss = evaluate($evaluated, validation_x, validation_y)
        losses.append(validation_loss)
        print(f"epoch {epoch + 1:3d} of {EPOCHS}: loss {loss.item():.4f}, validation accuracy {accuracy:.4f}")
$each$after    print(f"test accuracy {evaluate($evaluated, test_x, test_y)[0]:.4f}")


if __name__ == "__main__":
    main()
''')

TORCHVISION = Template('''\
def load(folder):
    """Return training and test images as floats in 0..1, [N, C, H, W], with their labels."""
    parts = []
    for train in (True, False):
        split = datasets.$name(folder, train=train, download=True)
        images, labels = torch.as_tensor(split.data), torch.as_tensor(split.targets)
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
        parts += [images.float() / 255, labels]
    return parts''')

SKLEARN = Template('''\
def load(folder):
    """Return training and test rows with their labels, split as in hpo."""
    x, y = load_$name(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32).reshape(-1, $shape) for part in parts[:2])
    return train_x, torch.tensor(parts[2]), test_x, torch.tensor(parts[3])''')

AVERAGE = Template('''\

HORIZON = $horizon


@torch.no_grad()
def update_average(averaged, net, step, steps):
    """Add the weights of a network after a step (from 0) to the averages, given the steps of an epoch."""
    weight = ema_weight(HORIZON, step, steps)
    for average, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        average.lerp_(value, weight) if value.is_floating_point() else average.copy_(value)

''')
