"""A folder of images, one folder per class, as one array; made once and kept in the cache."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo import files
from hpo.data.cache import cache_folder
from hpo.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read_folder(root: Path, size: int, grey: bool, skip_broken: bool) -> tuple[NDArray[np.uint8], list[str], str]:
    """Return images as uint8 [N, C, size, size], their classes' names, and a digest of what they were made of.

    An image of another shape is cut to a square around its middle, then scaled. Raises: DataError.
    """
    if not root.is_dir():
        raise DataError(f"{root}: must be a folder with one folder of images per class.")
    found = [
        (path, folder.name)
        for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise DataError(f"{root}: must hold one folder of images per class, got no image in any folder.")
    digest = _digest(root, found, size, grey)
    kept = cache_folder() / "own" / f"{digest}.npz"
    if kept.exists():
        with np.load(kept, allow_pickle=False) as content:
            return content["x"], content["names"].tolist(), digest
    images, names = [], []
    for path, name in found:
        image = _decode(path, size, grey, skip_broken)
        if image is not None:
            images.append(image)
            names.append(name)
    x = np.stack(images)
    with files.replacing(kept) as temporary:
        np.savez(temporary, x=x, names=np.array(names))
    return x, names, digest


def _digest(root: Path, found: list[tuple[Path, str]], size: int, grey: bool) -> str:
    """Return what changes whenever an image does; the same on every machine that has the same files."""
    digest = hashlib.sha256(f"{size} {grey}".encode())
    for path, name in found:
        digest.update(f"{path.relative_to(root)} {name} ".encode())
        digest.update(bytes.fromhex(files.sha256(path)))
    return digest.hexdigest()


def _decode(path: Path, size: int, grey: bool, skip_broken: bool) -> NDArray[np.uint8] | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image: Any = ImageOps.exif_transpose(opened).convert("L" if grey else "RGB")
    except (OSError, ValueError, SyntaxError) as error:
        if skip_broken:
            return None
        raise DataError(
            f"{path}: cannot be decoded as an image ({error}). Remove it, or set skip_broken = true."
        ) from error
    scaled = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    array = np.asarray(scaled, dtype=np.uint8).reshape(size, size, -1)
    return np.ascontiguousarray(array.transpose(2, 0, 1))
