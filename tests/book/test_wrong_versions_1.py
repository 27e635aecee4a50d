"""Every wrong version of every equation of chapters 0, 4, 8 and 12 is rejected."""

import pytest

import wrong_versions as tool

CHAPTERS = tool.find_chapters(["00", "04", "08", "12"])


@pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.stem for chapter in CHAPTERS])
def test_every_wrong_version_is_rejected(chapter):
    assert tool.not_rejected(chapter) == []
