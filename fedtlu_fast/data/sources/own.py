"""The data that a `Federation` was given in Python."""

from __future__ import annotations

from fedtlu_fast.data.sources.source import Source
from fedtlu_fast.parts import part


@part
class OwnData(Source):
    """Stands in settings for data that were given as objects; no task reads it by its name."""
