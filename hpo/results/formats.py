"""A trained network in other programs' formats: ONNX, TorchScript, torch.export; each checked against the network."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpo import files
from hpo.errors import TrainingError, UsageError, suggestion
from hpo.results.model_folder import Classifier

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2"}
TOLERANCE = 1e-4
"""Largest difference of a logit: libraries sum in another order."""


def check_model_format(name: str) -> str:
    """Return the name of a format if it is one. Raises: UsageError."""
    if name not in SUFFIXES:
        raise UsageError(f'format: no format named "{name}". {suggestion(name, SUFFIXES)}')
    return name


def export_model(classifier: Classifier, to: str, path: Path) -> float:
    """Write a network with its preprocessing; return the largest difference of a logit that the file gives.

    The file takes any number of rows. Raises: UsageError if a package is missing, TrainingError if the outputs
    differ or the file cannot be written.
    """
    source = torch.Generator().manual_seed(0)
    examples = torch.rand(7, *classifier.input_shape, generator=source) * classifier.scale
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch's advice to prefer another format
        content, answer = _WRITERS[check_model_format(to)](classifier, examples[:4])
        difference = float((answer(examples) - classifier(examples)).abs().max())
    if not difference <= TOLERANCE:
        raise TrainingError(f"{to}: the outputs must agree to {TOLERANCE:g}, got a difference of {difference:.2g}.")
    files.write_output(path, content)
    return difference


Answer = Callable[[Tensor], Tensor]


def _torchscript(classifier: Classifier, examples: Tensor) -> tuple[bytes, Answer]:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(classifier, examples), buffer)  # type: ignore[no-untyped-call]
    buffer.seek(0)
    loaded = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue(), loaded


def _pt2(classifier: Classifier, examples: Tensor) -> tuple[bytes, Answer]:
    buffer = io.BytesIO()
    torch.export.save(_program(classifier, examples), buffer)
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


def _program(classifier: Classifier, examples: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(classifier, (examples,), dynamic_shapes=({0: torch.export.Dim("rows")},))


def _onnx(classifier: Classifier, examples: Tensor) -> tuple[bytes, Answer]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise UsageError(f"--to onnx: needs the package {error.name}. Install it: pip install 'hpo[onnx]'") from error
    program = torch.onnx.export(
        _program(classifier, examples), input_names=["x"], output_names=["logits"], dynamo=True, verbose=False
    )
    if program is None:
        raise TrainingError("onnx: torch.onnx returned no program.")
    content: bytes = program.model_proto.SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(content))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def answer(x: Tensor) -> Tensor:
        [logits] = session.run(None, {session.get_inputs()[0].name: x.numpy().astype(np.float32)})
        return torch.from_numpy(logits)

    return content, answer


_WRITERS: dict[str, Callable[[Classifier, Tensor], tuple[bytes, Answer]]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "pt2": _pt2,
}
