"""Reads and writes YAML, for settings and the files of run directories.

The reader follows the core schema of YAML 1.2, so that values mean what they look like: ``1e-3`` is a number,
``010`` is ten, and ``no``, ``1:30`` and ``2024-01-01`` are text. Size, depth and expansion are limited.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fedtlu_fast.errors import InputError
from fedtlu_fast.shown import one_line, visible

LIMIT_VARIABLE = "FEDTLU_YAML_BYTES"
"""Environment variable that raises `MOST_BYTES`."""
MOST_BYTES = 4 * 2**20
MOST_DEPTH = 50
MOST_DIGITS = 1000
MOST_VALUES = 100_000
"""The number of values that aliases may add to the values in the text."""

FLOAT, INT = "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"
_FLOAT = re.compile(
    r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"[-+]?[0-9][0-9_]*$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_MERGE = re.compile(r"<<$")


class YamlTextError(ValueError):
    """The text is not YAML, or exceeds a limit; the message is one line."""


def parse_yaml(text: str) -> Any:
    """Returns the value of a YAML text.

    Raises:
        YamlTextError: The text is not YAML, has a key twice, or exceeds a limit.
    """
    most = most_bytes()
    if len(text) > most:
        raise YamlTextError(f"at most {most:,} bytes; {LIMIT_VARIABLE} raises this limit")
    try:
        return yaml.load(text, Loader=_Loader)
    except YamlTextError:
        raise
    # A tag on a value of another kind may raise KeyError, IndexError, AttributeError and other errors.
    except Exception as error:
        known = isinstance(error, yaml.YAMLError | ValueError)
        why = one_line(error) if known else "a tag (such as !!bool) is on a value of another kind"
        raise YamlTextError(why) from None


def read_yaml_file(path: Path, field: str) -> Any:
    """Returns the value of a YAML file.

    Args:
        path: the path of the file.
        field: the setting or option that names the file, for the message.

    Raises:
        InputError: The file cannot be read, or `parse_yaml` refuses its text.
    """
    most = most_bytes()
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise YamlTextError(f"at most {most:,} bytes; {LIMIT_VARIABLE} raises this limit")
        return parse_yaml(content.decode("utf-8"))
    except FileNotFoundError:
        raise InputError(field, str(path), "a YAML file that exists") from None
    except UnicodeDecodeError as error:
        raise InputError(field, str(path), f"a readable YAML file in UTF-8; {one_line(error)}") from None
    except YamlTextError as error:
        raise InputError(field, str(path), f"a readable YAML file; {error}") from None
    except (OSError, ValueError) as error:
        raise InputError(field, str(path), f"a readable YAML file; {one_line(error)}") from None


def dump_yaml(value: Any, *, flow: bool = False) -> str:
    """Writes a value as YAML text in ASCII, which every YAML reader reads as the same value.

    Args:
        value: a value made of mappings, sequences, texts, numbers and None.
        flow: whether to write the value in one line, as far as it fits.
    """
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=flow))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested mappings with their dotted names, which begin with `prefix`."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def most_bytes() -> int:
    """Returns the largest size of a YAML text in bytes."""
    given = os.environ.get(LIMIT_VARIABLE, "")
    return int(given) if given.isdecimal() and len(given) < 19 else MOST_BYTES


class _Loader(yaml.SafeLoader):
    """Loads YAML like SafeLoader, but with the plain values of YAML 1.2 and with limits."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (as in the base class)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}
        self._added = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        begun: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias = begun if isinstance(begun, yaml.AliasEvent) else None
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise YamlTextError(f"at most {MOST_DEPTH} levels; line {begun.start_mark.line + 1} goes deeper")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias is not None:
            self._count_alias(alias, node)
        self._sizes[id(node)] = 1 + sum(self._sizes.get(id(child), 1) for child in _children(node))
        if isinstance(node, yaml.MappingNode) and alias is None:
            _check_keys(node)
        return node

    def _count_alias(self, alias: Any, node: Any) -> None:
        line = alias.start_mark.line + 1
        if id(node) not in self._sizes:
            raise YamlTextError(
                f"no value that holds itself; line {line} makes one of *{visible(alias.anchor)}"
            )
        self._added += self._sizes[id(node)]
        if self._added > MOST_VALUES:
            raise YamlTextError(
                f"aliases that stand for at most {MOST_VALUES:,} values; line {line} goes beyond"
            )

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node).replace("_", "")
        if len(text) > MOST_DIGITS:
            line = node.start_mark.line + 1
            raise YamlTextError(
                f"numbers of at most {MOST_DIGITS} digits; line {line} has one of {len(text):,}"
            )
        # 010 is ten; int() without a base would refuse 0o and 0x.
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def construct_yaml_float(self, node: Any) -> float:
        text = self.construct_scalar(node).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: Any) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        line, name = key.start_mark.line + 1, (key.tag, key.value)
        if name in lines:
            raise YamlTextError(
                f"every key once; {visible(key.value)} is in line {lines[name]} and again in line {line}"
            )
        lines[name] = line


class _Dumper(yaml.SafeDumper):
    """Writes YAML like SafeDumper, and quotes every text that YAML 1.1 or 1.2 would read as another value."""

    yaml_implicit_resolvers = yaml.SafeDumper.yaml_implicit_resolvers.copy()

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", _BOOL, "tTfF"),
    (FLOAT, _FLOAT, "-+0123456789."),
    (INT, _INT, "-+0123456789"),
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", _MERGE, "<"),
):
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))
_Loader.add_constructor(INT, _Loader.construct_yaml_int)
_Loader.add_constructor(FLOAT, _Loader.construct_yaml_float)
