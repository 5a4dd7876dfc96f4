"""What is made once and stored with its checksum."""

import pytest

from maskutils.core import paths
from maskutils.core.caches import cached, checksum_of
from maskutils.core.files import read_json, write_json


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))
    return paths.cache_dir("transfer") / "a.json"


def stored(path, make):
    return cached(path, make, lambda rows, p: write_json(p, rows), read_json)


def test_what_another_process_stored_meanwhile_is_not_written_over(path, recwarn):
    def overtaken():
        stored(path, lambda: [1])
        return [2]

    assert stored(path, overtaken) == [2]
    assert stored(path, lambda: [3]) == [1]
    assert not recwarn


def test_what_is_damaged_is_named_and_made_again_once(path):
    stored(path, lambda: [1])
    path.write_text("[7]")
    with pytest.warns(UserWarning, match=r"cache: .*a\.json is damaged, and is made anew"):
        assert stored(path, lambda: [2]) == [2]
    assert stored(path, lambda: [3]) == [2]


def test_one_that_another_process_is_making_anew_is_made_here_too(path):
    stored(path, lambda: [1])

    def found_damaged(at):
        checksum_of(at).unlink()
        return read_json(at)

    assert cached(path, lambda: [2], lambda rows, p: write_json(p, rows), found_damaged) == [2]
