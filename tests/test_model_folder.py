"""A model folder is enough to use the model anywhere."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import hpo
from hpo import data
from hpo.config import (
    CNN,
    EMA,
)
from hpo.errors import DocumentError
from hpo.results import formats, model_folder, predict, retrain
from hpo.results.export import Export
from tests.helpers.retraining import MLP_CONFIG, trained


@pytest.mark.slow
def test_a_model_folder_is_enough(tmp_path: Path) -> None:
    kept, metrics = trained(MLP_CONFIG, tmp_path)
    model_folder.write_model_folder(tmp_path, Export(MLP_CONFIG, {}, "of a test"), kept, metrics)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.toml",
        "confusion_matrix.png",
        "learning_curve.png",
        "metrics.json",
        "model.safetensors",
        "model_card.md",
    ]
    assert metrics["test_accuracy"] > 0.9 and sum(map(sum, metrics["confusion"])) == 360
    rows = data.load_test(data.info("digits"))
    model = hpo.load(tmp_path)
    logits = model(torch.from_numpy(rows.x))
    assert not model.training and model.classes == tuple("0123456789")
    assert (logits.argmax(1).numpy() == rows.y).mean() == pytest.approx(metrics["test_accuracy"])
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), retrain.probabilities(kept, rows), atol=1e-5)

    np.savez(tmp_path / "rows.npz", x=rows.x[:5])
    flat = "\n".join([",".join(f"p{i}" for i in range(64)), *(",".join(map(str, x.ravel())) for x in rows.x[:5])])
    (tmp_path / "rows.csv").write_text(flat)
    found = list(predict.predict(model, [tmp_path / "rows.npz", tmp_path / "rows.csv"]))
    assert (
        [p.label for p in found[:5]] == [p.label for p in found[5:]] == [str(i) for i in logits[:5].argmax(1).tolist()]
    )
    assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5) for p in found)

    for to in formats.SUFFIXES:
        path = tmp_path / f"model{formats.SUFFIXES[to]}"
        assert formats.export_model(model, to, path) < 1e-4 and path.stat().st_size > 1000

    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(DocumentError, match="must be the weights of MLP 32-16"):
        hpo.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DocumentError, match=r"must be a model folder, got one without model.safetensors"):
        hpo.load(tmp_path)


def test_a_cnn_comes_back_too(tmp_path: Path) -> None:
    network = CNN(channels=(8, 16), dropout=(0.0, 0.1), norm="batch")
    config = dataclasses.replace(MLP_CONFIG, model=network, epochs=4, average=EMA(0.3))
    kept, metrics = trained(config, tmp_path)
    model_folder.write_model_folder(tmp_path, Export(config, {}, "of a test"), kept, metrics)
    rows = data.load_test(data.info("digits"))
    logits = hpo.load(tmp_path)(torch.from_numpy(rows.x))
    assert (logits.argmax(1).numpy() == rows.y).mean() == pytest.approx(metrics["test_accuracy"], abs=0.003)
    assert (
        "an exponential moving average over the training steps (horizon 0.3 epochs)"
        in (tmp_path / "model_card.md").read_text()
    )
