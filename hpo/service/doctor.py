"""Checks of the user's machine and of a space on it, and the proof that a killed training is resumed."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hpo.doctor import machine_checks, space_checks, store_checks
from hpo.doctor.findings import Finding
from hpo.doctor.resume_proof import ResumeProof
from hpo.doctor.resume_proof import prove_resume as prove
from hpo.service.data import OnDownload, fetch_data, ignore_download
from hpo.space import load_space
from hpo.training.devices import choose_device

__all__ = ["Finding", "ResumeOnDevice", "ResumeProof", "examine", "examine_store", "prove_resume"]


def examine(storage: str | None = None, *, space: str | None = None, device: str = "auto") -> Iterator[Finding]:
    """Yield the findings about versions, devices, store, data and disk; with a space, also about its networks.

    Raises: UsageError for an unknown space or device, before the first finding.
    """
    findings = machine_checks.check_machine(storage)
    if space is None:
        return findings
    return itertools.chain(
        findings, space_checks.check_space(load_space(space, trust_code=True), choose_device(device))
    )


def examine_store(storage: str | None = None, *, repair: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with a store and its files; with `repair`, mend it after a copy and yield what was done.

    Raises: StoreError for a store that is missing or not hpo's, or at which workers are while it is to be mended.
    """
    return store_checks.check_whole_store(storage, mend=repair)


@dataclass(frozen=True)
class ResumeOnDevice:
    """A proof, and the device it was made on."""

    proof: ResumeProof
    device: str

    @property
    def holds(self) -> bool:
        """Whether resuming kept every bit; a GPU's sums depend on their order, so there differences are no fault."""
        return not self.proof.differing or self.device != "cpu"


def prove_resume(
    space: str,
    *,
    seed: int = 0,
    device: str = "auto",
    on_step: Callable[[str], None],
    on_download: OnDownload = ignore_download,
) -> ResumeOnDevice:
    """Kill a space's first training, resume it, and compare it with the same training left alone.

    Raises: UsageError, DocumentError, DataError; TrainingError if a worker fails or the trial is too short.
    """
    chosen, checked = choose_device(device), load_space(space, trust_code=True)
    fetch_data(checked.data, on_download=on_download)
    return ResumeOnDevice(prove(checked, seed, str(chosen), on_step), str(chosen))
