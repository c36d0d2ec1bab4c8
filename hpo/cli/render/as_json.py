"""Studies, trials, confirmations and audits as JSON types."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.service.audit import Audit, PrunerComparison
    from hpo.service.confirm import Confirmation, Interval
    from hpo.service.studies import StudySummary, StudyView, TrialView


def trial_json(trial: "TrialView") -> dict[str, Any]:
    """Return a trial as JSON types."""
    return {
        "number": trial.number,
        "state": trial.state,
        "value": trial.value,
        "cost": trial.cost,
        "params": trial.params,
        "curve": {str(epoch): value for epoch, value in trial.curve.items()},
        "outside": trial.outside,
        **{key: value for key, value in trial.attributes.user.items() if key != "curves"},
    }


def study_json(study: "StudyView") -> dict[str, Any]:
    """Return a study as JSON types."""
    return {
        "name": study.name,
        "space": study.attributes.space_name,
        "data": (study.attributes.space or {}).get("data"),
        "data_fingerprint": study.attributes.data_fingerprint,
        "counts": study.counts,
        "metric": study.metric_label,
        "cost": study.cost_label,
        "infeasible": study.infeasible,
        "drawn_at_random": study.drawn_at_random,
        "revived": study.revived,
        "graph_failures": study.graph_failures,
        "outside": study.outside,
        "best_value": study.best_value,
        "budget": study.budget.model_dump() if study.budget else None,
        "active_seconds": study.active_seconds,
        "over": study.over.reason if study.over else None,
        "trials_per_hour": study.trials_per_hour,
        "lanes": study.lanes,
        "occupancy": study.occupancy,
        "workers": list(study.workers),
        "workers_asked": study.workers_asked,
    }


def summary_json(summary: "StudySummary") -> dict[str, Any]:
    """Return a study with its best trials as JSON types."""
    return study_json(summary.view) | {
        "failures": dict(summary.failures),
        "device_hours": summary.device_hours,
        "best_trials": [trial_json(trial) for trial in summary.best],
        "front": [trial.number for trial in summary.front],
    }


def confirmation_json(result: "Confirmation") -> dict[str, Any]:
    """Return a confirmation as JSON types."""
    return {
        "study": result.study,
        "winner": result.winner.number,
        "verdict": result.verdict,
        "better_than_baseline": result.certain,
        "missing": result.missing,
        "fresh_cuts": result.fresh_cuts,
        "test_like_training": result.test_like_training,
        "candidates": [
            {
                "trial": c.number,
                "baseline": c.baseline,
                "searched": c.searched,
                "values": list(c.values),
                "mean": c.mean,
                "interval": _pair(c.interval),
                "luck": c.luck,
                "gap": _pair(c.gap),
                "promise": _pair(c.promise),
                "config": c.config.to_dict(),
            }
            for c in result.candidates
        ],
    }


def audit_json(result: "Audit") -> dict[str, Any]:
    """Return an audit as JSON types."""
    return {
        "study": result.study,
        "metric": result.metric,
        "winner": result.winner,
        "winner_value": result.winner_value,
        "pruned": result.pruned,
        "better": result.better,
        "better_share": _pair(result.share),
        "missing": result.missing,
        "trials": [
            {
                "trial": trial.number,
                "pruned_at": trial.pruned_at,
                "value_then": trial.value_then,
                "value": trial.value,
                "config": trial.config.to_dict(),
            }
            for trial in result.audited
        ],
        "pruners": None if result.pruners is None else _pruners_json(result.pruners),
    }


def _pruners_json(comparison: "PrunerComparison") -> dict[str, Any]:
    return {
        "trials": comparison.trials,
        "of": comparison.of,
        "partly_trained": comparison.partly_trained,
        "winner": comparison.winner,
        "epochs": comparison.epochs,
        "outcomes": [
            {
                "pruner": outcome.pruner.model_dump(),
                "is_own": outcome.is_own,
                "survivors": outcome.survivors,
                "estimated": outcome.estimated,
                "epochs": outcome.epochs,
                "saved": round(comparison.saved(outcome), 4),
                "winner_survives": outcome.winner_survives,
            }
            for outcome in comparison.outcomes
        ],
    }


def _pair(interval: "Interval | None") -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
