"""Does an audit tell the truth? Whole studies whose pruned trials are all trained to the end.

    python -m benchmarks.audits [--studies 20] [--space ann_digits] [--trials 30] [--drawn 6] [-o FILE]

Each study has its own seed. As many of its pruned trials are audited as `hpo audit` does, drawn at random by it; then
all others too, which gives the truth. Shown: how often the audit's 95 % interval holds the share of pruned trials that
would have beaten the best one, and how much of what pruning cost was seen.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.whole_studies import Row, WholeStudy, mean, measure
from hpo import space
from hpo.results import audit


@dataclass(frozen=True)
class Setting:
    """What is searched, and how many pruned trials are audited; the same for all studies of a run."""

    space: str
    trials: int
    epochs: int | None
    """None for those of the space."""
    drawn: int


def whole_study(job: tuple[Setting, int]) -> Row:
    """Search once, audit some of the pruned trials, then all."""
    setting, seed = job
    with tempfile.TemporaryDirectory() as name:
        searched = space.load_space(setting.space)
        searched = searched.model_copy(update={"epochs": setting.epochs or searched.epochs})
        whole = WholeStudy(searched, setting.trials, seed, Path(name))
        results = []
        for trials in (setting.drawn, setting.trials):
            whole.run(audit.prepare(whole.store, whole.study, trials))
            results.append(audit.evaluate(whole.store, whole.study))
        whole.store.dispose()
    drawn, everything = results
    assert drawn is not None
    assert everything is not None
    assert len(everything.audited) == everything.pruned, "all pruned trials were trained to the end"
    truth = everything.better / everything.pruned
    return {
        "seed": seed,
        "winner": everything.winner_value,
        "pruned": everything.pruned,
        "audited": len(drawn.audited),
        "better": everything.better,
        "better_audited": drawn.better,
        "share": truth,
        "interval": [drawn.share.low, drawn.share.high],
        "covered": truth in drawn.share,
        "loss": everything.loss,
        "loss_audited": drawn.loss,
        "values": [trial.value for trial in everything.audited],
    }


def described(row: Row) -> str:
    """Return a study's result in a line."""
    low, high = row["interval"]
    return (
        f"seed {row['seed']:2d}: {row['better']} of {row['pruned']} pruned trials beat the best, by up to "
        f"{row['loss']:.4f}; audit: {row['better_audited']} of {row['audited']}, share {low:.2f} to {high:.2f}"
        f"{'' if row['covered'] else '  MISSED'}, by up to {row['loss_audited']:.4f}"
    )


def summary(rows: Sequence[Row]) -> Row:
    """Return what the studies show together."""
    return {
        "studies": len(rows),
        "share_covered": sum(row["covered"] for row in rows),
        "mean_half_width": mean([(row["interval"][1] - row["interval"][0]) / 2 for row in rows]),
        "pruned": sum(row["pruned"] for row in rows),
        "better": sum(row["better"] for row in rows),
        "studies_with_a_loss": sum(row["better"] > 0 for row in rows),
        "losses_seen_in_full": sum(row["better"] > 0 and row["loss_audited"] == row["loss"] for row in rows),
        "mean_loss": mean([row["loss"] for row in rows]),
        "largest_loss": max(row["loss"] for row in rows),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--space", default="ann_digits")
    arguments.add_argument("--trials", type=int, default=30)
    arguments.add_argument("--epochs", type=int, help="instead of those of the space")
    arguments.add_argument("--drawn", type=int, default=6)
    measure(arguments, Setting, whole_study, described, summary)


if __name__ == "__main__":
    main()
