"""Adds a source of texts with labels: recipes that are made up from a few words."""

import random

from fedtlu_fast.data.labelled import by_name
from fedtlu_fast.data.sources.source import Read, TextSource
from fedtlu_fast.data.splits import announce
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.parts import part

DISHES = {
    "soup": "boil water salt carrot leek",
    "bread": "flour yeast knead oven crust",
    "salad": "leaf oil toss raw",
}


@part
class Recipes(TextSource):
    """Makes short texts about one of three dishes.

    Attributes:
        count: number of texts.
        seed: seed of their words.
    """

    count: int = 600
    seed: int = 0

    def texts(self) -> Read[TextSet]:
        """Returns different texts, each with its dish as label."""
        draws = random.Random(self.seed)
        found: dict[str, str] = {}
        while len(found) < self.count:
            dish = draws.choice(sorted(DISHES))
            found.setdefault(" ".join(draws.choices(DISHES[dish].split(), k=6)), dish)
        attributes = {"label": by_name(list(found.values()), sorted(DISHES))}
        return Read(TextSet(list(found), attributes), None, announce("recipes", None))
