"""Files that are whole or not there."""

import os

import pytest

from maskutils.core.files import write_atomically


def test_writing_makes_the_folder_and_leaves_only_the_file(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "f", b"new")
    assert {p.name: p.read_bytes() for p in (tmp_path / "a" / "b").iterdir()} == {"f": b"new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("broken", ["replace", "chmod"])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error, broken):
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(error):
        write_atomically(tmp_path / "f", b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]
