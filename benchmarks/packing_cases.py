"""The trials that the benchmark of packing trains."""

import random
from dataclasses import dataclass

import optuna

from hpo import space
from hpo.config import CNN, MLP, SGD, Adam, AdamW, OneCycle, RMSprop, SGDMomentum, Split, TrialConfig

DIGITS, FASHION = Split(0.25), Split(2000)


@dataclass(frozen=True)
class Case:
    """Trials to be trained by each engine."""

    data: str
    widths: tuple[int, ...]
    """Of a hidden layer, drawn from."""
    depths: tuple[int, ...]
    batches: tuple[int, ...]
    rows: float
    """Part of the training rows."""
    epochs: int
    promised: float | None
    """Packed over solo on a CPU; None where `auto` need only not lose."""
    channels: tuple[int, ...] = ()
    """Of convolutional networks instead, drawn from."""


CASES = {
    "digits, hidden 16-64, batch 16-32": Case("digits", (16, 32, 48, 64), (1, 2, 3), (16, 32), 1.0, 5, 1.5),
    "Fashion-MNIST, hidden 16-64, batch 16-32": Case(
        "fashion_mnist", (16, 32, 48, 64), (1, 2, 3), (16, 32), 0.1, 2, 1.5
    ),
    "Fashion-MNIST, hidden 64-128, batch 64": Case("fashion_mnist", (64, 96, 128), (1, 2), (64,), 0.15, 2, None),
    "Fashion-MNIST, hidden 128-256, batch 128": Case("fashion_mnist", (128, 192, 256), (2,), (128,), 0.15, 2, None),
    "Fashion-MNIST, hidden 256-512, batch 256": Case("fashion_mnist", (256, 512), (2,), (256,), 0.15, 2, None),
    "digits, CNN of 4-16 channels, batch 16-32": Case("digits", (), (2,), (16, 32), 1.0, 3, None, (4, 8, 12, 16)),
    "Fashion-MNIST, CNN of 8-16 channels, batch 64": Case("fashion_mnist", (), (2,), (64,), 0.05, 2, None, (8, 12, 16)),
}
MIXED = (SGD(0.05), SGDMomentum(0.02, 1e-4, 0.9, True), Adam(1e-3), AdamW(2e-3, 1e-2), RMSprop(5e-4))


def configs(case: Case, count: int, seed: int) -> list[TrialConfig]:
    """Return trials that differ in all that may differ within a lane."""
    chance, found = random.Random(seed), []
    for number in range(count):
        depth = chance.choice(case.depths)
        sizes = tuple(chance.choice(case.channels or case.widths) for _ in range(depth))
        dropout = (chance.choice((0.0, 0.2)),) * depth
        activation = chance.choice(("relu", "gelu", "tanh"))
        norm = chance.choice(("none", "batch"))
        kind = CNN if case.channels else MLP
        model = kind(sizes, dropout, activation=activation, norm=norm)  # type: ignore[arg-type]
        found.append(
            TrialConfig(
                case.data,
                model,
                MIXED[number % len(MIXED)],
                chance.choice(case.batches),
                case.epochs,
                seed=number,
                schedule=OneCycle(),
                split=DIGITS if case.data == "digits" else FASHION,
                data_fraction=case.rows,
            )
        )
    return found


def drawn_from(name: str, count: int) -> list[TrialConfig]:
    """Return random trials of a space."""
    found = space.load_space(name)
    plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [found.draw(plain.ask(), number) for number in range(count)]
