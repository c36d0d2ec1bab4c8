"""The only reading of the test split, at the very end."""

import statistics
from typing import Any

from scipy import stats

from hpo import data
from hpo.results import model_folder
from hpo.results.intervals import LEVEL, Interval, mean_interval
from hpo.results.promise import Promise
from hpo.results.retrain import Trained, probabilities
from hpo.results.test_scores import score_of, test_scores


def _difference(kept: Trained, metrics: dict[str, Any], score: float, promised: Interval) -> dict[str, Any]:
    """Return by how much test rows that came with the data differ from rows like those of training, as JSON types.

    `difference` is the test `score` minus the middle of the promised interval, with its 95 % interval; `classes` are
    those whose share of rows classified correctly differs beyond chance from that on the validation rows, in the same
    direction (Fisher's exact test, corrected for the number of classes).
    """
    difference = score - (promised.low + promised.high) / 2
    differing = []
    if not kept.with_validation:
        rows = kept.parts.validation
        right = probabilities(kept, rows).argmax(1) == rows.y
        for number, scores in enumerate(metrics["classes"]):
            seen = right[rows.y == number]
            hits = round(scores["recall"] * scores["rows"])
            table = [[hits, scores["rows"] - hits], [int(seen.sum()), int((~seen).sum())]]
            alternative = "less" if difference < 0 else "greater"
            if stats.fisher_exact(table, alternative).pvalue < (1 - LEVEL) / len(metrics["classes"]):
                differing.append(scores["name"])
    return {
        "difference": difference,
        "interval": [score - promised.high, score - promised.low],
        "classes": differing,
    }


def evaluate_on_test(trained: list[Trained], promise: Promise | None) -> tuple[Trained, dict[str, Any]]:
    """Test trainings of one config on different seeds; return the one to keep, and its metrics as JSON types.

    Kept is the one with the highest validation score or, where validation was trained on, the first.
    `promise` is where test scores should lie, in the config's metric. Of several trainings their mean tells, better
    than one of them, whether test rows that came with the data differ from those of training.
    """
    kept = max(trained, key=lambda t: 0.0 if t.with_validation else t.run.final.score(t.run.config.metric))
    info = kept.parts.info
    rows = data.load_test(info, kept.parts.encoding)
    scores = [test_scores(probabilities(t, rows), rows.y, info.classes) for t in trained]
    run = kept.run
    metrics: dict[str, Any] = scores[trained.index(kept)]
    score = score_of(run.config.metric, metrics)
    metrics |= {"metric": run.config.metric, "test_score": score}
    mean = statistics.fmean(score_of(run.config.metric, one) for one in scores)
    if promise is not None:
        metrics |= {"promised_test_score": _pair(promise.one), "as_promised": score in promise.one}
        promised = promise.of_mean(len(trained))
        if not info.test_like_training and mean not in promised:
            metrics["test_rows_differ"] = _difference(kept, metrics, mean, promised)
    if len(trained) > 1:
        accuracies = [one["test_accuracy"] for one in scores]
        interval = mean_interval(accuracies)
        metrics["seeds"] = {
            "seeds": [t.run.config.seed for t in trained],
            "test_accuracies": accuracies,
            "mean": sum(accuracies) / len(accuracies),
            "mean_interval": _pair(interval),
            "mean_test_score": mean,
        }
        if promise is not None:
            metrics["seeds"] |= {"promised_mean_test_score": _pair(promised), "mean_as_promised": mean in promised}
    metrics |= {
        "validation_accuracy": None if kept.with_validation else run.final.validation_accuracy,
        "train_accuracy": run.examine().train_accuracy,
        "trained_on": "train+val" if kept.with_validation else "train",
        "trained_on_rows": len(run.data.train_y),
        "epochs": len(run.history),
        "seconds": round(sum(result.seconds for result in run.history), 3),
        "parameters": run.facts.parameters,
        "device": run.facts.device,
        "precision": run.facts.precision,
        "data_fingerprint": kept.parts.fingerprint,
        "curves": model_folder.curves(kept),
    }
    return kept, metrics


def _pair(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
