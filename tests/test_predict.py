"""Prediction: what does not fit the network is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import hpo
from hpo.errors import HpoError
from hpo.results import model_folder, predict
from hpo.results.export import Export
from tests.helpers.retraining import MLP_CONFIG, trained


def test_what_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    kept, metrics = trained(dataclasses.replace(MLP_CONFIG, epochs=1), tmp_path)
    model_folder.write_model_folder(tmp_path, Export(MLP_CONFIG, {}, "of a test"), kept, metrics)
    model = hpo.load(tmp_path)
    from PIL import Image

    Image.new("RGB", (30, 20)).save(tmp_path / "big.png")
    (tmp_path / "not.png").write_text("hello")
    np.savez(tmp_path / "wrong.npz", x=np.zeros((3, 7)))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.csv").write_text("a,b\nx,y\n")
    (tmp_path / "nan.csv").write_text("\n".join([",".join(f"p{i}" for i in range(64)), "," * 63]))
    for name, message in {
        "big.png": "must be 8x8 pixels, got 30x20. Use --resize to scale it.",
        "not.png": "cannot be decoded as an image",
        "wrong.npz": "must have the shape N x 1 x 8 x 8, got 3 x 7",
        "objects.npz": "cannot be read as npz without pickle",
        "text.csv": "must be a table of numbers with a header line",
        "nan.csv": "must hold finite numbers",
        "none.npz": "no such file",
        "model_card.md": "must be an image",
    }.items():
        with pytest.raises(HpoError, match=message):
            list(predict.predict(model, [tmp_path / name]))
    assert len(list(predict.predict(model, [tmp_path / "big.png"], resize=True))) == 1
