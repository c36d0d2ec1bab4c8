"""Costs of untrained networks, and the limits that a space sets; they are checked before anything is trained."""

from typing import Annotated, Literal

from pydantic import Field

from hpo.documents import Section

Cost = Literal["parameters", "memory_mb", "latency_ms"]
"""Costs in the order in which they are computed: the fast ones first."""
UNITS: dict[Cost, str] = {"parameters": "parameters", "memory_mb": "MB of training memory", "latency_ms": "ms per row"}
COST_NAMES: dict[Cost, str] = {
    "parameters": "parameters",
    "memory_mb": "training memory in MB",
    "latency_ms": "latency in ms",
}
Costs = dict[Cost, float]


def shown(name: Cost, cost: float) -> str:
    """Return a cost to display."""
    return f"{cost:,.0f}" if name == "parameters" else f"{cost:.3g}"


class Constraints(Section):
    """Limits of configurations. One that exceeds a limit is not trained and uses no budget; the sampler learns it."""

    max_parameters: Annotated[int, Field(ge=1)] | None = None
    """Trainable parameters."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Milliseconds of the untrained network for one row, on the worker's device: the median of 30 passes."""
    max_memory_mb: Annotated[float, Field(gt=0)] | None = None
    """Estimate, in MB: parameters, gradients, optimizer state, and every layer's output for one batch, 4 bytes each."""

    @property
    def limits(self) -> Costs:
        """The limits that are set, by cost."""
        given: dict[Cost, float | None] = {
            "parameters": self.max_parameters,
            "memory_mb": self.max_memory_mb,
            "latency_ms": self.max_latency_ms,
        }
        return {name: limit for name, limit in given.items() if limit is not None}

    def broken(self, costs: Costs) -> str:
        """Return which limits are exceeded by known costs, in words; empty if none is."""
        excesses = []
        for name, limit in self.limits.items():
            cost = costs.get(name, 0.0)
            if cost > limit:
                excesses.append(f"{shown(name, cost)} {UNITS[name]}, max_{name} is {limit:,g}")
        return "; ".join(excesses)

    def excess(self, costs: Costs) -> Costs:
        """Return the relative excess over each limit: <= 0 where the limit is kept, 0 where the cost is not known."""
        return {name: costs[name] / limit - 1 if name in costs else 0.0 for name, limit in self.limits.items()}
