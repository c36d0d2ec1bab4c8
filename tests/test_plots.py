"""Pictures of a training: nothing is cut off, whatever the classes are called and the images' shape is."""

import io

import numpy as np
import pytest
from PIL import Image

from hpo import plots


def check_margins(picture: bytes) -> None:
    """A picture has something in it, and its edges are white."""
    pixels = np.asarray(Image.open(io.BytesIO(picture), formats=["PNG"]).convert("L"))
    assert pixels.min() < 128
    assert min(edge.min() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])) == 255


@pytest.mark.parametrize("classes", [["0", "1"], ["WWWWWWWWWW", "i"] * 5, ["M" * 30] * 3, ["long " * 50] * 2])
def test_a_confusion_matrix_has_room_for_the_names(classes: list[str]) -> None:
    check_margins(plots.confusion(np.eye(len(classes), dtype=int).tolist(), classes))


@pytest.mark.parametrize("shape", [(1, 8, 8), (18, 28, 28), (7, 10, 40), (7, 40, 10), (4, 20, 40, 3)])
def test_images_have_their_titles_above_them(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random(shape).tolist()
    check_margins(plots.wrong_images(images, ["Ankle boot\nnot Sneaker (0.97)"] * shape[0]))


@pytest.mark.parametrize("scale", [1.0, 1e-5, 12345.0])
def test_curves_have_room_for_their_numbers(scale: float) -> None:
    values = (scale * np.linspace(0.2, 1.0, 30)).tolist()
    check_margins(plots.learning_curve({"train_loss": values, "validation_loss": values, "train_accuracy": [0.5]}))
