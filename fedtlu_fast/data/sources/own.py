"""The source that stands for data which a `Federation` received as Python objects."""

from __future__ import annotations

from fedtlu_fast.data.sources.source import Source
from fedtlu_fast.parts import part


@part
class OwnData(Source):
    """Represents data that were given as objects in a run's settings; no task can read it by its name."""
