"""`hpo doctor`: what a helpful colleague checks on this machine."""

from typing import Annotated

import typer

from hpo.cli.options import AsJson, Device, Storage, complete_space, out, print_json, talk

app = typer.Typer(help="What a helpful colleague checks first; with `resume`, a proof.")


@app.callback(invoke_without_command=True)
def doctor(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Option(
            help="Also this space: its data, and whether its networks run and learn.", autocompletion=complete_space
        ),
    ] = None,
    device: Device = "auto",
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, devices, the store, data and disk; with --space, whether its networks run and learn."""
    if context.invoked_subcommand is not None:
        return
    import dataclasses
    import itertools

    from hpo.doctor import machine_checks
    from hpo.doctor import space_checks as spaces_doctor

    findings = machine_checks.check_machine(storage)
    if space is not None:
        from hpo.space import load_space
        from hpo.training.devices import choose_device

        findings = itertools.chain(
            findings, spaces_doctor.check_space(load_space(space, trust_code=True), choose_device(device))
        )
    found = []
    colors = {"ok": "green", "warning": "yellow", "failure": "red"}
    console = out()
    for finding in findings:
        found.append(finding)
        if not as_json:
            remedy = f" [dim]{finding.remedy}[/dim]" if finding.remedy else ""
            color = colors[finding.status]
            console.print(f"[{color}]{finding.status:8}[/{color}] {finding.check:9} {finding.text}.{remedy}")
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in found])
    if any(finding.status == "failure" for finding in found):
        raise typer.Exit(1)


@app.command()
def resume(
    space: Annotated[str, typer.Option(help="The space whose first trial is killed and resumed.")] = "ann_digits",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trial.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Kill a training (kill -9), resume it, and compare it with the same training left alone, bit for bit."""
    import dataclasses

    from hpo.cli.data import fetch_with_progress
    from hpo.doctor.resume_proof import prove_resume
    from hpo.space import load_space
    from hpo.training.devices import choose_device

    where = choose_device(device)
    found = load_space(space, trust_code=True)
    fetch_with_progress(found.data)
    console = talk()
    proof = prove_resume(found, seed, str(where), lambda line: console.print(f"{line} ...", style="dim"))
    if as_json:
        print_json(dataclasses.asdict(proof))
    else:
        out().print(f"{proof.summary}, on {where}")
        at = f"killed after epoch {proof.killed_after} of {proof.epochs} and resumed"
        if not proof.differing:
            out().print(f"ok: {at}, it ended bit for bit as without: the curve and {proof.tensors} tensors.")
        elif where.type == "cpu":
            out().print(f"FAILED: {at}, it ended with other values of: {', '.join(proof.differing)}.")
        else:
            out().print(f"note: {at}, it ended with other values of: {', '.join(proof.differing)}.")
            out().print("On a GPU this is no fault: its sums depend on the order in which they are made.")
    if proof.differing and where.type == "cpu":
        raise typer.Exit(1)
