"""A lane: trials of one bucket that are trained together as one program, and join and leave it between epochs."""

import time
from collections.abc import Collection

import torch
from torch import Tensor

from hpo.training.dataset import ResidentData
from hpo.training.engine import Checkpoint, EpochResult, Fault
from hpo.training.metrics import confusions, metrics_of
from hpo.training.packed.compute.cnn import ConvImpl
from hpo.training.packed.compute.graphed_program import program_kind
from hpo.training.packed.compute.program import Member, Program
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.packed.scheduling.foresight import Foresight


class Lane:
    """A unit of up to `slots` trials. Its program is replaced where it cannot take the trials that join."""

    def __init__(
        self,
        bucket: Bucket,
        slots: int,
        data: ResidentData,
        rows: Tensor,
        validation: Tensor,
        *,
        conv_impl: ConvImpl = "grouped",
        foresight: Foresight | None = None,
    ) -> None:
        """`rows` and `validation` are the rows of `data` in the form that the networks take."""
        self.foresight = foresight or Foresight()
        self.bucket, self.slots, self.conv_impl = bucket, slots, conv_impl
        self.data, self.rows, self.validation = data, rows, validation
        self.members: dict[int, Member] = {}
        self.program: Program | None = None
        """Trains the live members; holds their state while it exists."""
        self.ended: set[int] = set()
        """Trials whose training has ended; their state is in their `Member` again."""
        self._started = 0.0
        self._graph_failure = ""
        self._program_is_new = True
        self.seconds: float | None = None
        """Duration of the latest epoch; None if its program was made during it, or trials moved since."""

    @property
    def shared(self) -> bool:
        """Whether the lane is for several trials."""
        return self.slots > 1

    @property
    def room(self) -> int:
        """Number of free slots."""
        return max(0, self.slots - len(self.members))

    def trials(self) -> list[int]:
        """Return the keys of the trials held."""
        return list(self.members)

    def live(self) -> list[int]:
        """Return the keys of the trials that have epochs left to train."""
        return [key for key in self.members if key not in self.ended]

    def admit(self, member: Member) -> None:
        """Take a trial, which joins the others at the next epoch."""
        self.members[member.key] = member

    def end(self, key: int) -> None:
        """End the training of a trial; its state stays until it is evicted."""
        if key not in self.ended:
            self.members[key].tensors = self._tensors(key)
            self.ended.add(key)

    def evict(self, key: int) -> None:
        """Remove a trial; its memory is freed at the next epoch."""
        del self.members[key]
        self.ended.discard(key)
        if not self.members:
            self.program = None

    def launch(self) -> None:
        """Start the next epoch of all live trials; on a GPU this does not wait for it.

        Raises: torch.OutOfMemoryError; then all trials are as they were before the epoch.
        """
        self._started = time.perf_counter()
        live = [self.members[key] for key in self.live()]
        self._program_is_new = self.program is None or not self.program.set_members(live)
        if self.program is None or self._program_is_new:
            self.release_program()
            kind = program_kind(self.rows.device)
            spare = self.foresight.spare([m.config for m in live], self.slots) if kind.static_shapes else []
            self.program = kind(live, self.data, self.rows, self.bucket, conv_impl=self.conv_impl, spare=spare)
        self.program.snapshot()
        try:
            self.program.train_epoch()
        except torch.OutOfMemoryError:
            self.program.join()
            self.program.rollback()
            raise

    def is_done(self) -> bool:
        """Return whether `collect` would not wait for the steps of the epoch that was launched."""
        return self.program is None or self.program.is_done()

    def collect(self) -> dict[int, EpochResult | Fault]:
        """Finish the epoch that was launched: wait for it, validate, and return the outcome for each trial in it."""
        program = self.program
        assert program is not None
        try:
            program.join()
            confusion = program.training_confusions()
            logits = program.evaluate(self.validation).transpose(0, 1)
            training, validation = metrics_of([confusion, confusions(logits, self.data.validation_y.unsqueeze(1))])
        except torch.OutOfMemoryError:
            program.rollback()
            raise
        seconds = time.perf_counter() - self._started
        self.seconds = None if self._program_is_new else seconds
        outcomes: dict[int, EpochResult | Fault] = {}
        held = program.held()
        for slot, member in held:
            outcome = member.history.add_epoch(
                (training[slot].accuracy, training[slot].loss), validation[slot], seconds / len(held)
            )
            outcomes[member.key] = outcome
            if isinstance(outcome, EpochResult):
                self._after_epoch(program, slot, member, outcome)
        return outcomes

    def _after_epoch(self, program: Program, slot: int, member: Member, result: EpochResult) -> None:
        """Copy the weights if the epoch is the best; copy the whole state if it is the trial's last."""
        if member.config.best_weights and member.history.improved:
            member.best = program.evaluated_weights(slot)
        if result.last:
            state = {name: value for name, value in program.tensors(slot).items() if not name.startswith("average.")}
            kept = member.best or program.evaluated_weights(slot)
            member.tensors = state | {f"model.{name}": value for name, value in kept.items()}
            self.ended.add(member.key)

    def release_program(self) -> None:
        """Copy the state of every live trial back to its `Member`, and drop the program."""
        if self.program is not None:
            for slot, member in self.program.held():
                if member.key in self.live():
                    member.tensors = self.program.tensors(slot)
            self._graph_failure = self.graph_failure()
        self.program = None

    def graph_failure(self) -> str:
        """Return why the steps are taken one by one although a CUDA graph was wanted; empty otherwise."""
        return self._graph_failure or (self.program.graph_failure if self.program is not None else "")

    def split(self) -> "Lane":
        """Halve a lane that does not fit in memory; return the new lane of the other half."""
        live = self.live()
        self.slots = max(1, len(live) // 2)
        return self.separate(live[self.slots :], self.bucket)

    def separate(self, keys: Collection[int], bucket: Bucket) -> "Lane":
        """Move trials into a new lane; return that."""
        self.release_program()
        foresight = self.foresight if bucket == self.bucket else None
        sides = self.data, self.rows, self.validation
        other = Lane(bucket, self.slots, *sides, conv_impl=self.conv_impl, foresight=foresight)
        other.move_from(self, [key for key in self.members if key in keys])
        return other

    def absorb(self, other: "Lane") -> None:
        """Move all trials of another lane into this one."""
        other.release_program()
        self.move_from(other, other.trials())

    def move_from(self, other: "Lane", keys: Collection[int]) -> None:
        """Move trials of a lane without a program into this one."""
        self.seconds = other.seconds = None
        for key in keys:
            self.members[key] = other.members.pop(key)
            if key in other.ended:
                other.ended.remove(key)
                self.ended.add(key)

    def checkpoint(self, key: int) -> Checkpoint:
        """Return a trial's state after its latest completed epoch."""
        member = self.members[key]
        tensors = self._tensors(key) | {f"best.{name}": value for name, value in member.best.items()}
        arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in tensors.items()}
        return Checkpoint(member.config, arrays, tuple(member.history), self.bucket.precision)

    def _tensors(self, key: int) -> dict[str, Tensor]:
        """Return a trial's state: that in the program, if the program trains it."""
        if self.program is not None and key not in self.ended:
            for slot, member in self.program.held():
                if member.key == key:
                    return self.program.tensors(slot)
        return self.members[key].tensors
