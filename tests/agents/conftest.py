"""A preference stage with a shop, and one without."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import Outbox
from preference_stage import PreferenceStage, new_table


@pytest.fixture
async def stage(tmp_path: Path) -> PreferenceStage:
    stage = PreferenceStage(new_table(tmp_path), Outbox())
    stage.stock()
    await stage.start()
    return stage


@pytest.fixture
async def bare(tmp_path: Path) -> PreferenceStage:
    """A stage whose catalogue is empty."""
    stage = PreferenceStage(new_table(tmp_path), Outbox())
    await stage.start()
    return stage
