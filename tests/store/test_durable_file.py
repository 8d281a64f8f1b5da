"""A file is whole or as it was; what a full disk does to it is in tests/proof/test_disk_full.py."""

import os
from pathlib import Path

import pytest

from store.durable_file import create, remove_drafts, replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def replace(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def test_a_new_file_is_its_owners_alone(path: Path):
    before = os.umask(0)
    try:
        replace(path, b"new")
        create(path.with_name("other"), b"new")
    finally:
        os.umask(before)
    assert [each.stat().st_mode & 0o777 for each in (path, path.with_name("other"))] == [0o600, 0o600]


def test_one_that_takes_the_place_of_another_is_whose_that_was(path: Path):
    path.write_bytes(b"old")
    path.chmod(0o640)
    replace(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)


def test_until_it_is_whole_the_old_one_is_there(path: Path):
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_all_as_it_was(path: Path, error: type[BaseException]):
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"new")
        raise error
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_of_two_who_create_it_the_first_ones_stays(path: Path):
    create(path, b"first")
    create(path, b"second")
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == b"first"


def test_drafts_of_this_file_alone_are_removed(path: Path):
    for name in (".file.left", ".files.else", "file"):
        path.with_name(name).touch()
    remove_drafts(path)
    assert {each.name for each in path.parent.iterdir()} == {".files.else", "file"}
