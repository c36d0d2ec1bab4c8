"""Files are written whole or not at all."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from hpo import files
from hpo.artifacts import FolderFiles
from hpo.errors import HpoError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    files.write(path, "one")
    files.write(path, b"two", durable=True)
    assert path.read_bytes() == b"two" and names(path.parent) == ["a.txt"]
    assert files.sha256(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_is_interrupted_leaves_the_old_content(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    files.write(path, b"old")
    with pytest.raises(type(error)), files.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert len(names(tmp_path)) == 2, "the new content is written aside"
        assert [listed.name for listed in tmp_path.glob("*.npz")] == ["a.npz"], "who lists the files does not see it"
        raise error
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.npz"]


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    """Four threads write the same file at once: each read gives the whole content of one of them."""
    path, contents = tmp_path / "a.bin", [bytes([i]) * 200_000 for i in range(4)]
    files.write(path, contents[0])

    def write_often(content: bytes) -> None:
        for _ in range(20):
            files.write(path, content)

    threads = [threading.Thread(target=write_often, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    assert names(tmp_path) == ["a.bin"]


def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    files.write(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_is_followed_and_a_device_is_written_to(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    files.write(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    received: list[bytes] = []
    reader.start()
    files.write(pipe, "through")
    reader.join(10)
    assert received == [b"through"] and pipe.is_fifo()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(HpoError, match=r"cannot be written: .*\. Choose another --output\.$") as caught:
            files.write_output(wrong, "x", "--output")
        assert "\n" not in str(caught.value) and str(wrong) in str(caught.value)


def test_a_study_s_files_are_written_by_the_same_rules(tmp_path: Path) -> None:
    stored = FolderFiles(tmp_path / "uid")
    stored.write("checkpoints/0.bin", b"abc")
    assert stored.read("checkpoints/0.bin") == b"abc" and names(tmp_path / "uid" / "checkpoints") == ["0.bin"]
    stored.remove("checkpoints/0.bin")
    assert stored.read("checkpoints/0.bin") is None
