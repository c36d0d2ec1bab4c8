"""A program whose whole training step, for all its members, is one CUDA graph.

As in `hpo.training.cuda_graph`, everything that changes from step to step is read on the device at a step counter
that the graph advances: rows, labels, dropout bytes, and the eleven optimizer coefficients of each slot, computed from
its learning rate, schedule and step count. Everything that differs between trials is in memory too, so a graph that is
recorded once can train every trial that is put into a slot that fits it.

Where Triton is there, a step of MLPs is taken by fewer kernels: `hpo.training.packed.compute.fused`.

Not yet run on a GPU: the tests take the same counted steps one by one on a CPU, and check that they are the same
calls on the same memory for all members.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config import EMA, TrialConfig
from hpo.training.cuda_graph import StepGraph
from hpo.training.dataset import ResidentData
from hpo.training.devices import products_in
from hpo.training.packed.compute.cnn import ConvImpl
from hpo.training.packed.compute.fused import Way, agrees, wanted
from hpo.training.packed.compute.masks import Dropout, StackedRules, dropped_at
from hpo.training.packed.compute.optimizers import CHANGING, Step, VectorizedStep
from hpo.training.packed.compute.program import Member, Program
from hpo.training.packed.compute.static_mlp import StaticMLPs
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.packed.layout.mlp import MLPLayout

LEAST_HELD = 0.25
"""Share of occupied slots below which a smaller program is made: an empty slot takes as long as an occupied one."""


class GraphedProgram(Program):
    """A program that replays its step as a graph, on its own CUDA stream; without a graph, it calls each kernel."""

    static_shapes = True

    def __init__(
        self,
        members: Sequence[Member],
        data: ResidentData,
        rows: Tensor,
        bucket: Bucket,
        *,
        conv_impl: ConvImpl = "grouped",
        spare: Sequence[TrialConfig] = (),
    ) -> None:
        super().__init__(members, data, rows, bucket, conv_impl=conv_impl, spare=spare)
        self.counter = torch.zeros(1, dtype=torch.int64, device=self.device)
        """Number of the step within the epoch."""
        self.table = torch.zeros(self.steps, self.layout.slots, len(CHANGING) + 1, dtype=rows.dtype, device=self.device)
        """For each step and slot the optimizer's coefficients, and how far the average moves."""
        self.step_graph = StepGraph(self.device)
        self.fused = self._fused_way()
        """Takes the steps with kernels of Triton, if these do what torch's do."""
        for slot, member in enumerate(self.members):
            if member is None:
                self._clear_slot(slot)

    @property
    def plain(self) -> Way:
        """Takes the steps with torch's kernels."""
        # Not an attribute: memory of a program that refers to itself would be freed late.
        return Way(self._compute_gradients, self._update_weights)

    def _fused_way(self) -> Way | None:
        if not wanted(self.device) or not isinstance(self.network, StaticMLPs):
            return None
        # Imported here, as Triton is not everywhere.
        from hpo.training.packed.compute.fused_mlp import Batches, FusedMLPs, can_fuse
        from hpo.training.packed.compute.fused_update import FusedUpdate

        if not can_fuse(self.network):
            return None
        batches = Batches(self.rows, self.batches, self.logits, self.counter)
        sides = self.network.params, self.network.grads, self.vectorized, self.clip, self.averages
        update = FusedUpdate(*sides, table=self.table, counter=self.counter)
        return Way(FusedMLPs(self.network, batches, self.rules), update)

    def _optimizer_step(self) -> Step:
        self.vectorized = VectorizedStep(self.network.params, self.network.grads, self.moments)
        return self.vectorized

    def _new_dropouts(self) -> list[Dropout]:
        # A graph reads the dropout bytes of its step by a counter, so those of the whole epoch must exist.
        self.rules: StackedRules | None = None
        networks, sites = self.layout.networks, self.network.sites
        if not isinstance(self.network, StaticMLPs) or not sites:
            return [Dropout(site, networks, self.steps, whole_epoch=True) for site in sites]
        self.rules = rules = StackedRules(self.network.masks, self.steps)
        return [
            Dropout(site, networks, self.steps, whole_epoch=True, rules=rules.rules(number))
            for number, site in enumerate(sites)
        ]

    @property
    def graph_failure(self) -> str:
        """Why the steps are taken one by one although a CUDA graph was wanted; empty otherwise."""
        return self.step_graph.failure

    def set_members(self, members: Sequence[Member]) -> bool:
        """Make these the members and return True, if each new one fits into a slot that is free."""
        keys = {member.key for member in members}
        present = {member.key for _, member in self.held()}
        if len(keys) < LEAST_HELD * len(self.members):
            return False
        free = [slot for slot, member in enumerate(self.members) if member is None or member.key not in keys]
        places: list[tuple[int, Member]] = []
        for member in (m for m in members if m.key not in present):
            fitting = [slot for slot in free if self._fits(slot, member)]
            if not fitting:
                return False
            # Neighbours of one activation are evaluated at once.
            activations = [self.layout.networks[slot].activation for slot in fitting]
            same = member.network.activation in activations
            slot = fitting[activations.index(member.network.activation) if same else 0]
            free.remove(slot)
            places.append((slot, member))
        for slot in free:
            self._clear_slot(slot)
        for slot, member in places:
            self._assign(slot, member)
        return True

    def _fits(self, slot: int, member: Member) -> bool:
        """Return whether a slot can train a member: operations that no member needed are not in the graph.

        With torch's kernels a slot computes always the same activation, with those of Triton any one.
        """
        config, network, stacked = member.config, member.network, self.network
        any_activation = self.fused is not None and isinstance(stacked, StaticMLPs) and stacked.can_mask(network)
        return (
            self.layout.holds(network)  # type: ignore[arg-type]
            and (any_activation or network.activation == self.layout.networks[slot].activation)
            and set(dropped_at(network)) <= {dropout.site.index for dropout in self.dropouts}
            and (config.clip_norm is None or self.clip is not None)
            and (not isinstance(config.average, EMA) or self.averages is not None)
            and (config.class_weight == "none" or self._class_weights is not None)
        )

    def _clear_slot(self, slot: int) -> None:
        """Empty a slot."""
        self.members[slot] = None
        self.network.params.clear(slot)
        self.moments.replace(slot, None)
        self.vectorized.replace(slot, None)
        if self.averages is not None:
            self.averages.replace(slot, None)
        for dropout in self.dropouts:
            dropout.replace(slot, None)

    def _assign(self, slot: int, member: Member) -> None:
        """Put a member into a slot that it fits."""
        self._clear_slot(slot)
        config = member.config
        self.members[slot] = member
        self.layout.replace(slot, member.network)  # type: ignore[arg-type]
        self.network.replace(slot)
        balanced = config.class_weight == "balanced"
        self.network.loss.replace(slot, config.label_smoothing, self._class_weights if balanced else None)
        self.moments.replace(slot, config.optimizer)
        self.vectorized.replace(slot, config.optimizer)
        if self.clip is not None:
            self.clip.replace(slot, config.clip_norm)
        if self.averages is not None:
            self.averages.replace(slot, config.average)
        for dropout in self.dropouts:
            dropout.replace(slot, member.network)
        self._load(slot, member)

    def train_epoch(self) -> None:
        """Train the next epoch of every member, on the program's stream."""
        with self.step_graph.on_stream(), products_in(self.precision):
            lrs = self.start_epoch()
            self.table[:, :, :-1] = self.vectorized.table(lrs)
            if self.averages is not None:
                self.table[:, :, -1] = self.averages.table
            self.counter.zero_()
            self._choose_way()
            self.step_graph.run(self, self.steps)
        self.moments.steps = [step + self.steps for step in self.moments.steps]

    def _choose_way(self) -> None:
        """Train without Triton where it does something else in the first step."""
        if self.fused is None:
            return
        layout, network, grads = self.layout, self.network, self.network.grads.slab
        assert isinstance(network, StaticMLPs) and isinstance(layout, MLPLayout) and grads is not None
        sites = tuple(site.index for site in network.sites)
        shape = (layout.slots, layout.batch, layout.features, layout.classes, layout.depth, layout.widths[0])
        parts = (network.norm, network.units, network.loss.weights, self.clip, self.averages)
        kind = (self.device, self.rows.dtype, *shape, *sites, *(part is not None for part in parts))
        if not agrees(kind, self.fused, self.plain, self.changing(), [grads, self.logits.transpose(0, 1)]):
            self.fused = None

    def is_done(self) -> bool:
        """Return whether the epoch is computed."""
        return self.step_graph.is_done()

    def join(self) -> None:
        """Make the current CUDA stream wait for the epoch."""
        self.step_graph.join()

    def step(self) -> None:
        """Take the step at the counter: this is what the graph records."""
        way = self.plain if self.fused is None else self.fused
        way.compute_gradients()
        way.update_weights()
        self.counter.add_(1)

    def _compute_gradients(self) -> None:
        if self.rules is not None:
            self.rules.set_masks(self._now(self.rules.bytes))
        else:
            for dropout in self.dropouts:
                dropout.set_mask(self._now(dropout.bytes))
        logits = self.network.compute_gradients(self.rows, *self._now(self.batches))
        self.logits.index_copy_(0, self.counter, logits.unsqueeze(0))

    def _update_weights(self) -> None:
        if self.clip is not None:
            self.clip()
        row = self._now(self.table)
        self.vectorized.apply(row[:, :-1])
        if self.averages is not None:
            self.averages.apply(row[:, -1])

    def _now(self, tensor: Tensor) -> Tensor:
        """Return the entry of a tensor, [steps, ...], at the counter."""
        return tensor.index_select(0, self.counter).squeeze(0)

    def changing(self) -> list[Tensor]:
        """Return what a step changes: parameters, moments, running statistics, averages, the counter."""
        return [*super().changing(), self.counter]

    def before_capture(self) -> None:
        """Do nothing: a step allocates nothing that it keeps."""


def program_kind(device: torch.device) -> type[Program]:
    """Return the class of program that is fastest on a device."""
    return GraphedProgram if device.type == "cuda" else Program
