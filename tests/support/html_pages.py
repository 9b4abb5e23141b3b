"""Reads pages as a browser would, and finds what a page of ours must not have."""

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "link", "br", "hr", "img", "input"}
"""Elements without an end."""
ADDRESSES = ("src", "href", "data", "action", "poster", "srcset", "formaction", "xlink:href")


@dataclass
class HtmlPage(HTMLParser):
    """A page that was read.

    Attributes:
        wrong: what is wrong with it.
        tags: every element that begins: its name and its attributes.
        texts: the texts of elements, by the name of the innermost one.
        readings: what its charts give to its script.
    """

    text: str
    wrong: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    readings: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(self.text)
        self.close()
        self.wrong += [f"<{name}> is not closed" for name, _ in self._open]
        self._look()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens an element."""
        own = {name: value or "" for name, value in attrs}
        self.tags.append((tag, own))
        if tag not in VOID:
            self._open.append((tag, own))
        for name, value in own.items():
            if name in ADDRESSES and not re.match(r"#[\w-]+$|data:,$|[\w.%/+=@-]+/report\.html$", value):
                self.wrong.append(f"{tag} {name} asks for {value}")
            if name.startswith("on"):
                self.wrong.append(f"{tag} has {name}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens and closes an element of SVG."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Closes an element."""
        if not self._open or self._open[-1][0] != tag:
            self.wrong.append(f"</{tag}> closes {self._open[-1][0] if self._open else 'nothing'}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        """Keeps a text."""
        if not self._open:
            return
        name, own = self._open[-1]
        self.texts.setdefault(name, []).append(data)
        if name == "style" and re.search(r"url\(|@import", data):
            self.wrong.append("the style asks for a file")
        if name == "script" and own.get("type") == "application/json":
            self.readings.append(json.loads(data))

    def _look(self) -> None:
        names = [tag for tag, _ in self.tags]
        for landmark in ("header", "nav", "main", "footer", "h1", "title"):
            if names.count(landmark) != 1:
                self.wrong.append(f"{names.count(landmark)} of <{landmark}>")
        ids = [own["id"] for _, own in self.tags if "id" in own]
        self.wrong += [f"the id {one} twice" for one in set(ids) if ids.count(one) > 1]
        for tag, own in self.tags:
            if tag == "th" and own.get("scope") not in ("col", "row"):
                self.wrong.append("a head of a table without a scope")
            if tag == "a" and own["href"].startswith("#") and own["href"][1:] not in ids:
                self.wrong.append(f"a link to {own['href']}, which is nowhere")
            if tag == "svg" and not {"aria-label", "aria-hidden", "viewbox"} & own.keys():
                self.wrong.append("a drawing without words")
        levels = [int(name[1]) for name in names if re.fullmatch(r"h[1-6]", name)]
        steps = pairwise(levels)
        self.wrong += [f"<h{after}> after <h{before}>" for before, after in steps if after > before + 1]
        if ("script", {}) not in self.tags or names.count("script") != 1 + len(self.readings):
            self.wrong.append("scripts other than the page's own")

    @property
    def sections(self) -> list[str]:
        """The headings of its sections."""
        return [text for text in self.texts.get("h2", []) if text.strip()]


def read_page(text: str) -> HtmlPage:
    """Reads a page, which has nothing wrong."""
    page = HtmlPage(text)
    assert page.wrong == []
    assert not any(sign in text for sign in ("\x1b", "\u202e", "\ud800"))
    return page
