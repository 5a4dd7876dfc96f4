"""Files that are whole or not there."""

import errno
import os

import pytest

from maskutils.core.files import naming, write_atomically


def test_writing_makes_the_folder_and_leaves_only_the_file(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "f", b"new")
    assert {p.name: p.read_bytes() for p in (tmp_path / "a" / "b").iterdir()} == {"f": b"new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_atomically(tmp_path / "f", b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("call", ["mkdir", "replace"])
def test_a_full_disk_is_said_with_the_file_and_the_way_out(tmp_path, monkeypatch, call):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"No space left on device; free some space there, or set MASKUTILS_ROOT .*/f'"):
        write_atomically(tmp_path / "new" / "f", b"new")


def test_an_error_keeps_the_file_that_it_names_and_the_way_out_that_it_tells(tmp_path):
    own = r"space there, or set TMPDIR to a folder on another disk: '/tmp'$"
    for error, said in (
        (FileNotFoundError(errno.ENOENT, "No such file", "/f"), "No such file: '/f'$"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), f"exceeded; free some .* MASKUTILS_ROOT .*: '{tmp_path}'$"),
        (OSError("no system's"), "no system's$"),
    ):
        with pytest.raises(type(error), match=said), naming(tmp_path):
            raise error
    with pytest.raises(OSError, match=own), naming(tmp_path), naming(tmp_path / "tmp", "TMPDIR"):
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp")
