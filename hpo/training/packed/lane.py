"""A lane: trials of one bucket that are trained together, leaving and joining between epochs."""

import time
from collections.abc import Collection

import torch
from torch import Tensor

from hpo.training.dataset import ResidentData
from hpo.training.engine import Checkpoint, EpochResult, Fault
from hpo.training.metrics import compute_metrics
from hpo.training.packed.bucket import Bucket
from hpo.training.packed.cnn import ConvImpl
from hpo.training.packed.cuda_graph import program_kind
from hpo.training.packed.program import Member, Program


class Lane:
    """Holds up to `slots` trials; where others come than its program can take, that is made anew."""

    def __init__(
        self,
        bucket: Bucket,
        slots: int,
        data: ResidentData,
        rows: Tensor,
        validation: Tensor,
        way: ConvImpl = "grouped",
    ) -> None:
        """`rows` and `validation` are the data's as the networks take them; `way` is that of convolutions."""
        self.bucket, self.slots, self.way = bucket, slots, way
        self.data, self.rows, self.validation = data, rows, validation
        self.members: dict[int, Member] = {}
        self._program: Program | None = None
        self._ended: set[int] = set()
        """Those that take no further part; their state is their own again."""
        self._started = 0.0
        self._fresh = True
        """Whether the program was made for the epoch under way."""
        self.seconds: float | None = None
        """That the last epoch took; None if its program was made for it."""

    def trials(self) -> list[int]:
        return list(self.members)

    def live(self) -> list[int]:
        return [key for key in self.members if key not in self._ended]

    def end(self, key: int) -> None:
        """Have a trial take no further part."""
        if key not in self._ended:
            self.members[key].tensors = self._tensors(key)
            self._ended.add(key)

    @property
    def shared(self) -> bool:
        """Whether it is meant for several trials."""
        return self.slots > 1

    @property
    def room(self) -> int:
        return max(0, self.slots - len(self.members))

    def admit(self, member: Member) -> None:
        """Take a trial, which joins the others at the next epoch."""
        self.members[member.key] = member

    def evict(self, key: int) -> None:
        """Let a trial go; what it held is freed at the next epoch."""
        del self.members[key]
        self._ended.discard(key)
        if not self.members:
            self._program = None

    def launch(self) -> None:
        """Begin an epoch; on a device that works by itself this does not wait for it.

        Raises: torch.OutOfMemoryError; then all trials are as they were before it.
        """
        self._started = time.perf_counter()
        live = [self.members[key] for key in self.live()]
        self._fresh = self._program is None or not self._program.hold(live)
        if self._program is None or self._fresh:
            self.settle()
            self._program = program_kind(self.rows.device)(live, self.data, self.rows, self.bucket, self.way)
        self._program.snapshot()
        try:
            self._program.train_epoch()
        except torch.OutOfMemoryError:
            self._program.join()
            self._program.rollback()
            raise

    def collect(self) -> dict[int, EpochResult | Fault]:
        """Return what the epoch that was begun gave each trial."""
        program = self._program
        assert program is not None
        try:
            program.join()
            training = program.training_scores()
            judged = program.network.evaluate(self.validation)
        except torch.OutOfMemoryError:
            program.rollback()
            raise
        validation = [compute_metrics(logits, self.data.validation_y) for logits in judged]
        seconds = time.perf_counter() - self._started
        self.seconds = None if self._fresh else seconds
        outcomes: dict[int, EpochResult | Fault] = {}
        held = program.held()
        for slot, member in held:
            outcome = member.course.take(training[slot], validation[slot], seconds / len(held))
            outcomes[member.key] = outcome
            if isinstance(outcome, EpochResult):
                self._after(program, slot, member, outcome)
        return outcomes

    def _after(self, program: Program, slot: int, member: Member, result: EpochResult) -> None:
        """Remember the weights of the best epoch; a trial that has ended takes its state with it."""
        if member.config.best_weights and member.course.improved:
            member.best = program.weights(slot)
        if result.last:
            member.tensors = program.tensors(slot)
            if member.config.best_weights:
                member.tensors |= {f"model.{name}": value for name, value in member.best.items()}
            self._ended.add(member.key)

    def settle(self) -> None:
        """Give every trial its state back, and the program up."""
        if self._program is not None:
            for slot, member in self._program.held():
                if member.key in self.live():
                    member.tensors = self._program.tensors(slot)
        self._program = None

    def split(self) -> "Lane":
        """Halve a lane that does not fit in memory; return the lane that the other half is in now."""
        live = self.live()
        self.slots = max(1, len(live) // 2)
        return self.part(live[self.slots :], self.bucket)

    def part(self, keys: Collection[int], bucket: Bucket) -> "Lane":
        """Move trials into a lane of their own; return that."""
        self.settle()
        other = Lane(bucket, self.slots, self.data, self.rows, self.validation, self.way)
        for key in [key for key in self.members if key in keys]:
            other._take(self, key)
        return other

    def absorb(self, other: "Lane") -> None:
        """Take all trials of another lane."""
        other.settle()
        for key in other.trials():
            self._take(other, key)

    def _take(self, other: "Lane", key: int) -> None:
        """Take a trial of a lane that is settled."""
        self.members[key] = other.members.pop(key)
        if key in other._ended:
            other._ended.remove(key)
            self._ended.add(key)

    def checkpoint(self, key: int) -> Checkpoint:
        """Return a trial's state after its last completed epoch."""
        member = self.members[key]
        whole = self._tensors(key) | {f"best.{name}": value for name, value in member.best.items()}
        arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in whole.items()}
        return Checkpoint(member.config, arrays, tuple(member.course.history), self.bucket.precision)

    def _tensors(self, key: int) -> dict[str, Tensor]:
        """Return a trial's state, from the program if it is there."""
        if self._program is not None and key not in self._ended:
            for slot, member in self._program.held():
                if member.key == key:
                    return self._program.tensors(slot)
        return self.members[key].tensors
