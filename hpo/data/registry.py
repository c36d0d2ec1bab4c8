"""The data sets known by name: shapes, classes, files with their checksums, and their sources."""

from dataclasses import dataclass
from typing import Literal

from hpo.config import OwnData
from hpo.errors import UsageError, suggestion


@dataclass(frozen=True)
class DataFile:
    """One file of a data set, as it is in the cache: not compressed."""

    name: str
    size: int
    sha256: str = ""
    """Empty where only torchvision knows the sums: it checks its download, and hpo notes the sum then."""


@dataclass(frozen=True)
class DataInfo:
    """The description of a data set."""

    name: str
    title: str
    kind: Literal["images", "table"]
    input_shape: tuple[int, ...]
    """(C, H, W) of an image, (F,) of a table's row."""
    classes: tuple[str, ...]
    rows: tuple[int, int]
    """Training and test rows."""
    scale: float = 1.0
    """Divisor of the numbers before they are standardized."""
    files: tuple[DataFile, ...] = ()
    """Empty for a data set that comes with scikit-learn."""
    torchvision: str = ""
    """Name of the class in `torchvision.datasets` that can download it."""
    system_folder: str = ""
    """Folder where a system package installs it."""
    debian_package: str = ""
    user_data: OwnData | None = None
    """Source of the data, where it is the user's."""
    columns: tuple[str, ...] = ()
    """Names of the numbers of a row, where an npz file gives them."""
    test_like_training: bool = False
    """Whether hpo drew the test rows at random from the same rows as the training rows. Else they may differ from them,
    in ways that no validation shows."""


def _mnist_files(sums: tuple[str, str, str, str] = ("", "", "", "")) -> tuple[DataFile, ...]:
    """Return the four files that data sets in MNIST's format consist of, with the SHA-256 sums of their content."""
    parts = (
        ("train-images-idx3-ubyte", 47040016),
        ("train-labels-idx1-ubyte", 60008),
        ("t10k-images-idx3-ubyte", 7840016),
        ("t10k-labels-idx1-ubyte", 10008),
    )
    return tuple(DataFile(name, size, digest) for (name, size), digest in zip(parts, sums, strict=True))


DATA_SETS = {
    data.name: data
    for data in (
        DataInfo(
            name="fashion_mnist",
            title="Fashion-MNIST: 28x28 grey pictures of clothes, ten kinds",
            kind="images",
            input_shape=(1, 28, 28),
            classes=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            rows=(60000, 10000),
            scale=255.0,
            files=_mnist_files(
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                )
            ),
            torchvision="FashionMNIST",
            system_folder="/usr/share/datasets/fashion-mnist",
            debian_package="dataset-fashion-mnist",
        ),
        DataInfo(
            name="mnist",
            title="MNIST: 28x28 grey pictures of handwritten digits",
            kind="images",
            input_shape=(1, 28, 28),
            classes=tuple("0123456789"),
            rows=(60000, 10000),
            scale=255.0,
            files=_mnist_files(
                (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                )
            ),
            torchvision="MNIST",
        ),
        DataInfo(
            name="kmnist",
            title="KMNIST: 28x28 grey pictures of cursive Japanese characters, ten kinds",
            kind="images",
            input_shape=(1, 28, 28),
            classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
            rows=(60000, 10000),
            scale=255.0,
            files=_mnist_files(),
            torchvision="KMNIST",
        ),
        DataInfo(
            name="cifar10",
            title="CIFAR-10: 32x32 colour photographs, ten kinds",
            kind="images",
            input_shape=(3, 32, 32),
            classes=(
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            ),
            rows=(50000, 10000),
            scale=255.0,
            files=(
                DataFile("train-images-idx4-ubyte", 153600020),
                DataFile("train-labels-idx1-ubyte", 50008),
                DataFile("t10k-images-idx4-ubyte", 30720020),
                DataFile("t10k-labels-idx1-ubyte", 10008),
            ),
            torchvision="CIFAR10",
        ),
        DataInfo(
            name="digits",
            title="scikit-learn's digits: 8x8 grey pictures, ten kinds",
            kind="images",
            input_shape=(1, 8, 8),
            classes=tuple("0123456789"),
            rows=(1437, 360),
            scale=16.0,
            test_like_training=True,
        ),
        DataInfo(
            name="wine",
            title="scikit-learn's wine table: 13 measures of a wine, three growers",
            kind="table",
            input_shape=(13,),
            classes=("class_0", "class_1", "class_2"),
            rows=(142, 36),
            test_like_training=True,
        ),
        DataInfo(
            name="breast_cancer",
            title="scikit-learn's breast cancer table: 30 measures of a tumour, malignant or benign",
            kind="table",
            input_shape=(30,),
            classes=("malignant", "benign"),
            rows=(455, 114),
            test_like_training=True,
        ),
    )
}


def known() -> list[str]:
    """Return the names of all data sets."""
    return sorted(DATA_SETS)


def known_info(name: str | None) -> DataInfo:
    """Return the description of a data set. Raises: UsageError for an unknown name, or for none."""
    if not name:
        raise UsageError("data: is required by this space. Give your own: --data FILE_OR_FOLDER [--label COLUMN].")
    if name not in DATA_SETS:
        raise UsageError(f'No data set named "{name}". {suggestion(name, DATA_SETS)}')
    return DATA_SETS[name]
