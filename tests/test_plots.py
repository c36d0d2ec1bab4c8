"""Pictures of a training: nothing is cut off, whatever the classes are called and the images' shape is."""

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpo import plots
from hpo.interpreter import python
from tests.helpers.cluster import until


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


@pytest.mark.slow
@pytest.mark.skipif(not plots.AUTOGROUP.exists(), reason="this kernel does not schedule sessions as groups")
def test_the_drawing_process_gives_way_as_a_session_too(tmp_path: Path) -> None:
    """Started by a worker of a low priority it pauses after each picture, but not when nothing more comes."""
    curves = {"validation_loss": [0.5, 0.4]}
    jobs = [{"draw": "learning_curve", "to": str(tmp_path / str(i)), "arguments": {"curves": curves}} for i in range(3)]
    command = [*python("-c", "import os; os.nice(15); from hpo.plots import main; main()")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(jobs[0]) + "\n")
        process.stdin.flush()
        until((tmp_path / "0").exists)
        group = Path(f"/proc/{process.pid}/autogroup").read_text()
        assert group.endswith("nice 19\n") and os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        process.stdin.writelines(json.dumps(job) + "\n" for job in jobs[1:])
        process.stdin.close()
        assert process.wait(30) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
