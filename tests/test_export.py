"""Exported files: they read back, and damaged ones are refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from hpo.config import EMA, Average, NoAverage
from hpo.errors import DocumentError, HpoError
from hpo.results import export, retrain
from hpo.results.export import Export
from hpo.results.provenance import describe
from tests.helpers.retraining import MLP_CONFIG


@pytest.mark.parametrize("average", [NoAverage(), EMA(0.7)])
@pytest.mark.parametrize("suffix", ["toml", "json", "yaml"])
def test_an_exported_file_reads_back(tmp_path: Path, suffix: str, average: Average) -> None:
    path = tmp_path / f"best.{suffix}"
    provenance = {"study": "s", "trial": 3, "confirmed": False, "data_fingerprint": "f" * 64}
    config = dataclasses.replace(MLP_CONFIG, average=average)
    path.write_text(export.FORMATS[suffix](Export(config, provenance, describe(provenance))))
    assert export.read_config(path) == (config, provenance)


@pytest.mark.parametrize("value", [True, 3, 0.5, "x", [1], {"epochs": 3}])
def test_a_provenance_of_others_is_written_whatever_its_values(tmp_path: Path, value: object) -> None:
    """What hpo has a comment for, and does not read: `hpo train` writes it into the model's folder."""
    provenance = {"study": "s", "searched_at": value, "validation_score": value}
    path = tmp_path / "best.toml"
    path.write_text(export.to_toml(Export(MLP_CONFIG, provenance, "")))
    assert export.read_config(path) == (MLP_CONFIG, provenance)
    assert path.read_text().count(export.COMMENTS["provenance.validation_score"]) == 1


def test_damaged_and_newer_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text("{")
    with pytest.raises(DocumentError, match=r"best\.json: is not valid JSON"):
        export.read_config(path)
    path.write_text(json.dumps({"config": MLP_CONFIG.to_dict() | {"format": 99}}))
    with pytest.raises(DocumentError, match="made by a newer hpo"):
        export.read_config(path)
    path.write_text("[]")
    with pytest.raises(DocumentError, match=r"a table \[config\] is required"):
        export.read_config(path)
    with pytest.raises(HpoError, match="must have fingerprint ffff"):
        retrain.load_data(MLP_CONFIG, "f" * 64)
