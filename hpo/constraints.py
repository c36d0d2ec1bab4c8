"""What an untrained network costs, and what a space allows of it: judged before anything is trained."""

from typing import Annotated, Literal

from pydantic import Field

from hpo.documents import Section

Cost = Literal["parameters", "memory_mb", "latency_ms"]
"""The cheap ones to find out come first."""
UNITS: dict[Cost, str] = {"parameters": "parameters", "memory_mb": "MB of training memory", "latency_ms": "ms per row"}
COST_NAMES: dict[Cost, str] = {
    "parameters": "parameters",
    "memory_mb": "training memory in MB",
    "latency_ms": "latency in ms",
}
Costs = dict[Cost, float]


def shown(name: Cost, cost: float) -> str:
    """Return a cost as people read it."""
    return f"{cost:,.0f}" if name == "parameters" else f"{cost:.3g}"


class Constraints(Section):
    """Configurations that break one of these are never trained and cost no budget; the sampler learns of them."""

    max_parameters: Annotated[int, Field(ge=1)] | None = None
    """Trainable parameters."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Milliseconds of the untrained network for one row, on the worker's device: the median of 30 passes."""
    max_memory_mb: Annotated[float, Field(gt=0)] | None = None
    """Estimate, in MB: parameters, gradients, optimizer state, and every layer's output for one batch, 4 bytes each."""

    @property
    def limits(self) -> Costs:
        """The limits that are set, by what they limit."""
        given: dict[Cost, float | None] = {
            "parameters": self.max_parameters,
            "memory_mb": self.max_memory_mb,
            "latency_ms": self.max_latency_ms,
        }
        return {name: limit for name, limit in given.items() if limit is not None}

    def broken(self, costs: Costs) -> str:
        """Say in words which limits known costs break; empty if none."""
        found = []
        for name, limit in self.limits.items():
            cost = costs.get(name, 0.0)
            if cost > limit:
                found.append(f"{shown(name, cost)} {UNITS[name]}, max_{name} is {limit:,g}")
        return "; ".join(found)

    def excess(self, costs: Costs) -> Costs:
        """Return by how much of itself each limit is exceeded; <= 0 where it is kept, 0 where nothing is known."""
        return {name: costs[name] / limit - 1 if name in costs else 0.0 for name, limit in self.limits.items()}
