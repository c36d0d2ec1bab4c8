"""A folder of images, one folder per class, as one array; made once and kept in the cache."""

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpo import files
from hpo.data import decoding
from hpo.data.cache import cache_folder
from hpo.errors import DataError


def read_folder(root: Path, size: int, *, grey: bool, skip_broken: bool) -> tuple[NDArray[np.uint8], list[str], str]:
    """Return images as uint8 [N, C, size, size], the name of each one's class, and a digest of the files.

    An image of another shape is cropped to a square around its middle, then scaled. Raises: DataError.
    """
    if not root.is_dir():
        raise DataError(f"{root}: must be a folder with one folder of images per class.")
    images = [
        (path, folder.name)
        for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in decoding.IMAGE_SUFFIXES and path.is_file()
    ]
    if not images:
        raise DataError(f"{root}: must hold one folder of images per class, got no image in any folder.")
    digest = _digest(root, images, size, grey=grey)
    cached = cache_folder() / "own" / f"{digest}.npz"
    if cached.exists():
        with contextlib.suppress(DataError, KeyError):  # a damaged one is made again
            arrays = decoding.read_arrays(cached)
            return arrays["x"], arrays["names"].tolist(), digest
    rows, names = [], []
    for path, name in images:
        try:
            image = decoding.crop_and_scale(decoding.open_image(path, grey=grey), (size, size))
        except DataError as error:
            if skip_broken:
                continue
            raise DataError(f"{error} Remove it, or set skip_broken = true.") from error
        rows.append(decoding.pixels(image))
        names.append(name)
    if not rows:
        raise DataError(f"{root}: must hold images, got {len(images)} files that cannot be decoded.")
    x = np.stack(rows)
    try:
        with files.replacing(cached) as temporary, temporary.open("wb") as content:
            np.savez(content, x=x, names=np.array(names))
    except OSError as error:
        raise DataError(
            f"{cached}: cannot be written: {error.strerror or error}. Set HPO_DATA to another folder."
        ) from error
    return x, names, digest


def _digest(root: Path, images: list[tuple[Path, str]], size: int, *, grey: bool) -> str:
    """Return what changes whenever an image does; the same on every machine that has the same files."""
    digest = hashlib.sha256(f"{size} {grey}".encode())
    for path, name in images:
        digest.update(os.fsencode(f"{path.relative_to(root)} {name} "))
        try:
            digest.update(bytes.fromhex(files.sha256(path)))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}. Remove it.") from error
    return digest.hexdigest()
