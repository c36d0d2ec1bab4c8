"""Data: verified before it is used, fetched from where it can be had, split the same way each time."""

import dataclasses
import gzip
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpo import data
from hpo.config import Split
from hpo.data import download, sources
from hpo.data.cache import path_of
from hpo.data.registry import DataFile, DataInfo
from hpo.errors import DataError, UsageError


def idx(array: np.ndarray) -> bytes:
    """The IDX format that MNIST's files have."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataInfo:
    """A data set like Fashion-MNIST, small, in a system folder; the cache is empty."""
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    system, files = tmp_path / "system", []
    system.mkdir()
    for part, rows in (("train", 50), ("t10k", 20)):
        labels = np.arange(rows) % 5
        for name, array in ((f"{part}-images", random.integers(0, 256, (rows, 4, 4))), (f"{part}-labels", labels)):
            content = idx(array)
            (system / f"{name}.gz").write_bytes(gzip.compress(content))
            files.append(DataFile(name, len(content), hashlib.sha256(content).hexdigest()))
    return DataInfo(
        "small", "", "images", (1, 4, 4), tuple("abcde"), (50, 20), 255.0, tuple(files), system_folder=str(system)
    )


def test_files_come_from_a_system_folder_into_the_cache(small: DataInfo) -> None:
    assert data.state(small) == "missing"
    assert data.fetch(small) == small.system_folder
    assert data.state(small) == "ready"
    assert data.fetch(small) == "cache"
    leftovers = {p.name for p in path_of(small, small.files[0]).parent.iterdir()} - {f.name for f in small.files}
    assert leftovers <= {".lock", "SHA256SUMS"}


def test_gzipped_files_in_the_cache_are_unpacked_there(small: DataInfo) -> None:
    away = dataclasses.replace(small, system_folder="")
    folder = path_of(small, small.files[0]).parent
    folder.mkdir(parents=True)
    for packed in Path(small.system_folder).iterdir():
        packed.rename(folder / packed.name)
    lost = (folder / "t10k-labels.gz").rename(folder / "elsewhere")
    with pytest.raises(DataError, match=r"no source has the data \(.*/small/\*.gz: has no t10k-labels\)"):
        data.fetch(away)
    lost.rename(folder / "t10k-labels.gz")
    assert data.fetch(away) == f"{folder}/*.gz"
    assert data.state(away) == "ready"


def test_a_damaged_file_is_named_and_never_trained_on(small: DataInfo) -> None:
    data.fetch(small)
    path = path_of(small, small.files[0])
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()[:16]
    with pytest.raises(
        DataError, match=rf"train-images: must have SHA-256 {small.files[0].sha256[:16]}.*, got {found}"
    ):
        data.load_parts(small, Split(10))
    path.write_bytes(content[:500])
    with pytest.raises(DataError, match=r"train-images: must have 816 bytes, got 500. Run `hpo data fetch small`"):
        data.load_parts(small, Split(10))
    assert "got 500" in data.state(small)
    data.fetch(small)
    assert data.state(small) == "ready"


def test_a_damaged_source_is_passed_over_with_its_reason(small: DataInfo) -> None:
    broken = Path(small.system_folder) / "train-labels.gz"
    broken.write_bytes(broken.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"small: no source has the data \(.*system: train-labels.gz is damaged: "):
        data.fetch(small)
    broken.write_bytes(gzip.compress(b"other content"))
    with pytest.raises(DataError, match=r"train-labels.gz must have 58 bytes, got 13"):
        data.fetch(small)
    broken.unlink()
    with pytest.raises(DataError, match=r"has no train-labels"):
        data.fetch(small)
    assert data.state(small) == "missing"


def test_a_data_set_of_unknown_sums_is_held_to_what_came(small: DataInfo) -> None:
    unknown = dataclasses.replace(small, files=tuple(dataclasses.replace(f, sha256="") for f in small.files))
    assert data.state(unknown) == "missing"
    data.fetch(unknown)
    assert data.state(unknown) == "ready"
    known, told = data.fingerprint(small, Split(10)), data.fingerprint(unknown, Split(10))
    assert known == told
    path = path_of(unknown, unknown.files[1])
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(DataError, match=r"train-labels: must have SHA-256"):
        data.load_parts(unknown, Split(10))
    data.fetch(unknown)
    assert data.state(unknown) == "ready"


def test_what_torchvision_loads_becomes_idx_files(tmp_path: Path) -> None:
    grey = SimpleNamespace(data=torch.arange(24, dtype=torch.uint8).view(2, 3, 4), targets=torch.tensor([3, 1]))
    download.convert(grey, tmp_path, "train")
    assert (tmp_path / "train-images-idx3-ubyte").read_bytes() == idx(grey.data.numpy())
    assert (tmp_path / "train-labels-idx1-ubyte").read_bytes() == idx(np.array([3, 1]))
    colours = SimpleNamespace(data=np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), targets=[0, 9])
    download.convert(colours, tmp_path, "t10k")
    assert (tmp_path / "t10k-images-idx4-ubyte").read_bytes() == idx(colours.data.transpose(0, 3, 1, 2))
    for name in ("mnist", "kmnist", "cifar10"):  # sizes follow from the shapes
        info = data.info(name)
        rank = 3 if info.input_shape[0] == 1 else 4
        for (images, labels), rows in zip((info.files[:2], info.files[2:]), info.rows, strict=True):
            assert images.name.endswith(f"-images-idx{rank}-ubyte")
            assert images.size == 4 + 4 * rank + rows * np.prod(info.input_shape) and labels.size == 8 + rows


def test_missing_files_name_the_remedy(small: DataInfo) -> None:
    with pytest.raises(DataError, match=r"train-images: is missing. Run `hpo data fetch small`."):
        data.load_parts(small, Split(10))


def test_a_cache_that_cannot_be_written_is_named(
    small: DataInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file/small: cannot be written: Not a directory. Set HPO_DATA"):
        data.fetch(small)


@pytest.fixture
def silent_proxy() -> Iterator[str]:
    """A proxy that takes connections and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    taken = []

    def accept() -> None:
        while True:
            try:
                taken.append(server.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()


@pytest.mark.slow
def test_a_silent_network_costs_a_source_its_patience_and_no_more(
    silent_proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, silent_proxy)
    monkeypatch.setattr(sources, "TIMEOUT", 1.0)
    unlucky = dataclasses.replace(data.info("fashion_mnist"), system_folder="/nowhere")
    started: dict[str, float] = {}

    def progress(source: str, size: int) -> None:
        started.setdefault(source, time.monotonic())

    with pytest.raises(DataError) as caught:
        data.fetch(unlucky, progress)
    assert "/nowhere: no such folder" in str(caught.value)
    assert "torchvision's download: no progress for 1 s" in str(caught.value)
    debian = time.monotonic() - started["Debian's archive"]
    assert "Debian's archive: no progress for 1 s" in str(caught.value) or "apt is not installed" in str(caught.value)
    assert debian < 10
    assert data.state(unlucky) == "missing"


@pytest.mark.slow
def test_a_slow_source_that_goes_on_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "TIMEOUT", 1.0)
    sizes: list[int] = []
    sources.run_child(["sh", "-c", "for i in 1 2 3 4; do sleep 0.6; echo $i >> out; done"], tmp_path, sizes.append)
    assert (tmp_path / "out").read_text().split() == ["1", "2", "3", "4"]
    assert sizes == sorted(sizes)


def test_the_search_needs_no_test_files(small: DataInfo) -> None:
    data.fetch(small)
    for file in small.files[2:]:
        path_of(small, file).unlink()
    parts = data.load_parts(small, Split(10))
    assert len(parts.train.y) == 40
    with pytest.raises(DataError, match="t10k-images: is missing"):
        data.load_test(small)


def test_validation_is_a_stratified_seeded_cut(small: DataInfo) -> None:
    data.fetch(small)
    parts = data.load_parts(small, Split(10, seed=1))
    assert np.bincount(parts.validation.y).tolist() == [2] * 5
    assert np.bincount(parts.train.y).tolist() == [8] * 5
    rows = np.concatenate([parts.train.x, parts.validation.x]).reshape(50, -1)
    assert len(np.unique(rows, axis=0)) == 50
    again, other = data.load_parts(small, Split(10, seed=1)), data.load_parts(small, Split(10, seed=2))
    assert np.array_equal(parts.validation.x, again.validation.x)
    assert not np.array_equal(parts.validation.x, other.validation.x)
    assert np.array_equal(data.load_parts(small, Split(0.2, seed=1)).validation.x, parts.validation.x)


def test_the_fingerprint_tells_data_and_split_apart(small: DataInfo, tmp_path: Path) -> None:
    data.fetch(small)
    reference = data.fingerprint(small, Split(10))
    assert reference == data.load_parts(small, Split(10)).fingerprint
    assert data.fingerprint(small, Split(10, seed=1)) != reference
    assert data.fingerprint(small, Split(15)) != reference
    digits, cancer = (data.fingerprint(data.info(n), Split(0.25)) for n in ("digits", "breast_cancer"))
    assert digits != cancer


@pytest.mark.parametrize("validation", [2, 48, 0.01])
def test_a_split_that_leaves_a_class_out_is_refused(small: DataInfo, validation: float) -> None:
    data.fetch(small)
    with pytest.raises(DataError, match=r"split.validation must leave at least one row per class on each side"):
        data.load_parts(small, Split(validation))


def test_standardization_is_fitted_on_training_rows_only(small: DataInfo) -> None:
    data.fetch(small)
    parts = data.load_parts(small, Split(10))
    scaled = parts.train.x.astype(np.float64) / 255
    assert parts.mean == pytest.approx(scaled.mean()) and parts.std == pytest.approx(scaled.std())


def test_tables_are_standardized_by_column() -> None:
    parts = data.load_parts(data.info("breast_cancer"), Split(0.25))
    assert parts.mean.shape == parts.std.shape == (30,)
    assert parts.train.x.shape[1:] == (30,)


def test_an_unknown_data_set_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r'No data set named "fashion-mnist". Did you mean fashion_mnist\? Known: '):
        data.info("fashion-mnist")


@pytest.mark.slow
def test_fashion_mnist_is_the_real_one() -> None:
    fashion = data.info("fashion_mnist")
    data.fetch(fashion)
    parts, test = data.load_parts(fashion, Split(10000)), data.load_test(fashion)
    assert parts.train.x.shape == (50000, 1, 28, 28) and parts.train.x.dtype == np.uint8
    assert np.bincount(parts.validation.y).tolist() == [1000] * 10 == np.bincount(test.y).tolist()
    # The published mean and standard deviation of Fashion-MNIST's training images.
    assert parts.mean[0] == pytest.approx(0.2860, abs=1e-3) and parts.std[0] == pytest.approx(0.3530, abs=1e-3)
