from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.journals import Group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    group = Group()
    yield group
    await group.close()
