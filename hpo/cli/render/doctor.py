"""Findings of the doctor, and its proof, as lines."""

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from hpo.service.doctor import Finding, ResumeOnDevice

COLORS = {"ok": "green", "warning": "yellow", "failure": "red"}


def finding_line(finding: "Finding") -> Text:
    """Return a finding in one line."""
    status = (f"{finding.status:8}", COLORS[finding.status])
    remedy = (f" {finding.remedy}" if finding.remedy else "", "dim")
    return Text.assemble(status, f" {finding.check:9} {finding.text}.", remedy)


def proof_lines(proven: "ResumeOnDevice") -> list[str]:
    """Return what the proof has shown."""
    proof = proven.proof
    lines = [f"{proof.summary}, on {proven.device}"]
    at = f"killed after epoch {proof.killed_after} of {proof.epochs} and resumed"
    if not proof.differing:
        return [*lines, f"ok: {at}, it ended bit for bit as without: the curve and {proof.tensors} tensors."]
    changed = f"{at}, it ended with other values of: {', '.join(proof.differing)}."
    if not proven.holds:
        return [*lines, f"FAILED: {changed}"]
    return [
        *lines,
        f"note: {changed}",
        "On a GPU this is no fault: its sums depend on the order in which they are made.",
    ]
