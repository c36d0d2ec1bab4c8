"""Have torchvision download a data set and leave it as IDX files: `python -m hpo.data.download CLASS FOLDER`.

torchvision checks its downloads against MD5 sums. It runs as a child process, so that it can be stopped, and so that
what torchvision unpickles (CIFAR-10's batches, after that check) stays out of the main program.
"""

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write the IDX format of MNIST: two zero bytes, type, rank, big-endian sizes, then bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + np.ascontiguousarray(array).tobytes())


def convert(data_set: Any, folder: Path, part: str) -> None:
    """Write the images and labels of a torchvision data set: [N, H, W] grey or [N, C, H, W] coloured."""
    images = np.asarray(data_set.data, dtype=np.uint8)
    if images.ndim == 4:
        images = images.transpose(0, 3, 1, 2)
    write_idx(folder / f"{part}-images-idx{images.ndim}-ubyte", images)
    write_idx(folder / f"{part}-labels-idx1-ubyte", np.asarray(data_set.targets, dtype=np.uint8))


def main(name: str, folder: Path) -> None:
    """Download both parts of a data set and convert them."""
    from torchvision import datasets

    print("ready", flush=True)
    for train, part in ((True, "train"), (False, "t10k")):
        convert(getattr(datasets, name)(folder / "torchvision", train=train, download=True), folder, part)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
