"""A page of results in one self-contained HTML file: sections of words, tables and figures, in the report's style."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from domainseg.files import atomic_path


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows. content: SVG text, or the bytes of a PNG or JPEG file."""

    content: str | bytes
    caption: str

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        if isinstance(self.content, str):
            kind, data = "image/svg+xml", self.content.encode()
        else:
            kind = "image/jpeg" if self.content[:2] == b"\xff\xd8" else "image/png"
            data = self.content
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Table:
    """Rows of texts under their heads. numeric: numbers of the columns that are set flush right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    note: str = ""
    numeric: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables, figures below one another, and small pictures side by side (gallery)."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    gallery: Sequence[Figure] = ()


@dataclass(frozen=True)
class Page:
    """title and subtitle; brief: the result in a few sentences; warnings: what to know before reading on."""

    title: str
    subtitle: str = ""
    brief: Sequence[str] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=list)


def write_page(page: Page, path: Path) -> None:
    """Write the page to ``path``, atomically. The same page gives the same bytes; nothing in it is fetched."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("domainseg.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(environment.get_template("page.html").render(page=page), encoding="utf-8")
