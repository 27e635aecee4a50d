"""Every wrong version of every equation of chapters 2, 6 and 10 is rejected."""

import pytest

import wrong_versions as tool

CHAPTERS = tool.find_chapters(["02", "06", "10"])


@pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.stem for chapter in CHAPTERS])
def test_every_wrong_version_is_rejected(chapter):
    assert tool.not_rejected(chapter) == []
