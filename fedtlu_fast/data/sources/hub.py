"""Reads data sets that the library `datasets` loads, from the Hugging Face hub or from a local folder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from typing_extensions import override

from fedtlu_fast.data.documents import Documents
from fedtlu_fast.data.hub.location import Location, read_location
from fedtlu_fast.data.image_set import PIXELS, ImagePixels, ImageSet, ImageSize
from fedtlu_fast.data.sources.source import DocumentSource, ImageSource, Read, SentenceSource, TextSource
from fedtlu_fast.data.tagged import Sentences
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.parts import part
from fedtlu_fast.places import absolute


@part
class Hub(DocumentSource, SentenceSource, TextSource, ImageSource):
    """A data set of the Hugging Face hub, or a local folder that `datasets` reads.

    Splits are divided by their names (see `splits`). Columns are recognised by their names and types.

    Attributes:
        name: the data set's name on the hub, or the path of a local folder.
        configuration: one of its configurations or, if there is none of this name, a folder in it; empty: its
            only configuration.
        revision: one of its revisions; empty: the newest.
        image_size: side in pixels of a square to which images are scaled; null: they keep their size.
        image_pixels: largest number of pixels of one image file; a small file can claim to hold billions.
    """

    argument = ("name", "configuration", "revision")
    written = "NAME[:CONFIG][@REVISION]"
    name: str
    configuration: str = ""
    revision: str = ""
    image_size: ImageSize = None
    image_pixels: ImagePixels = PIXELS

    @override
    @classmethod
    def parsed_argument(cls, text: str) -> dict[str, Any]:
        found = read_location(text)
        more = {"configuration": found.configuration, "revision": found.revision}
        return {"name": found.name} | {name: value for name, value in more.items() if value}

    @override
    def written_argument(self) -> str:
        return self.location.text

    @property
    def location(self) -> Location:
        """The place of the data set."""
        return Location(self.name, self.configuration, self.revision)

    @override
    def located(self) -> Self:
        return self if self.location.folder is None else replace(self, name=absolute(self.name))

    def documents(self) -> Read[Documents]:
        """See `DocumentSource`, and `load_text_hub` for the columns."""
        from fedtlu_fast.data.hub.documents import load_text_hub

        return load_text_hub(self.location)

    def sentences(self) -> Read[Sentences]:
        """See `SentenceSource`, and `load_tagged_hub` for the columns."""
        from fedtlu_fast.data.hub.sentences import load_tagged_hub

        return load_tagged_hub(self.location)

    def texts(self) -> Read[TextSet]:
        """See `TextSource`, and `load_hub_texts` for the columns."""
        from fedtlu_fast.data.hub.texts import load_hub_texts

        return load_hub_texts(self.location)

    def images(self) -> Read[ImageSet]:
        """See `ImageSource`, and `load_image_hub` for the columns."""
        from fedtlu_fast.data.hub.images import load_image_hub

        return load_image_hub(self.location, self.image_size, self.image_pixels)
