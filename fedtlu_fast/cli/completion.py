"""What the shell offers when the user presses Tab; nothing here loads PyTorch.

Each function gets the beginning of a word and returns pairs of a possible word and what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from fedtlu_fast.runs.find import LATEST, name_of, run_directories
from fedtlu_fast.shown import shell_word

Pairs = list[tuple[str, str]]


def runs(incomplete: str) -> Pairs:
    """Offers the directories of runs, the latest first, then the names that only one of them has.

    A name with characters that mean something to a shell is left out, as it would be inserted unquoted.
    """
    paths = run_directories()
    names = Counter(name_of(path) for path in paths)
    words = dict.fromkeys([*(path.name for path in paths), *(name for name in names if names[name] == 1)])
    found = [(word, "") for word in words if shell_word(word) == word]
    return _matching(incomplete, [*found, *([(LATEST, "the run that was begun last")] if paths else [])])


def presets(incomplete: str) -> Pairs:
    """Offers the presets."""
    from fedtlu_fast.cli.known_settings import known_settings

    return _matching(incomplete, [(name, "") for name in known_settings().presets])


def settings(incomplete: str) -> Pairs:
    """Offers settings, each with an equals sign."""
    from fedtlu_fast.cli.known_settings import known_settings

    return _matching(
        incomplete, [(f"{path}=", one.meaning) for path, one in known_settings().settings.items()]
    )


def settings_without_value(incomplete: str) -> Pairs:
    """Offers the names of settings."""
    return [(name.removesuffix("="), what) for name, what in settings(incomplete)]


def parts(kind: str, *more: str) -> Callable[[str], Pairs]:
    """Returns a function that offers the parts of a kind.

    Args:
        kind: the kind of part, a key of `registry.NAMES`.
        more: other words that the option takes.
    """

    def offered(incomplete: str) -> Pairs:
        from fedtlu_fast.cli.part_lines import lines_of

        return _matching(incomplete, [*lines_of(kind).items(), *((word, "") for word in more)])

    return offered


def words(*known: str) -> Callable[[str], Pairs]:
    """Returns a function that offers these words."""
    return lambda incomplete: _matching(incomplete, [(word, "") for word in known])


def listed(kind: str, *more: str) -> Callable[[str], Pairs]:
    """Returns a function that offers the parts of a kind in a list with commas; see `parts`."""
    one = parts(kind, *more)

    def offered(incomplete: str) -> Pairs:
        before, comma, last = incomplete.rpartition(",")
        used = before.split(",")
        return [(f"{before}{comma}{name}", what) for name, what in one(last) if name not in used]

    return offered


def _matching(incomplete: str, pairs: Iterable[tuple[str, str]]) -> Pairs:
    return [pair for pair in pairs if pair[0].startswith(incomplete)]
