"""What became of a study's trials when it was given another space."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.service.admin import SpaceSet

LISTED = 10
"""Hidden trials that are listed with their reasons."""


def space_lines(result: "SpaceSet") -> list[str]:
    """Return lines for people: which trials stay as history, which are hidden, dropped or to be tried."""
    lines = [
        f"{len(result.kept)} finished trial(s) fit and stay as history, {len(result.hidden)} do not and are hidden"
    ]
    lines += [f"  trial {number}: {why}" for number, why in list(result.hidden.items())[:LISTED]]
    lines += [f"  and {len(result.hidden) - LISTED} more"] if len(result.hidden) > LISTED else []
    if result.waiting:
        lines.append(f"{len(result.waiting)} waiting trial(s) fit and are run")
    lines += [f"dropped trial {n}, {what}: {why}" for n, (what, why) in result.dropped.items()]
    lines += [f"to be tried: baseline {name}" for name in result.added]
    return lines


def space_json(result: "SpaceSet") -> dict[str, Any]:
    """Return the same as JSON types."""
    return {
        "kept": result.kept,
        "hidden": [{"trial": n, "why": why} for n, why in result.hidden.items()],
        "waiting": result.waiting,
        "dropped": [{"trial": n, "what": what, "why": why} for n, (what, why) in result.dropped.items()],
        "added": result.added,
    }
