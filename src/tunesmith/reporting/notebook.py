"""What a notebook shows: a summary of a result as its output, and its report where that is asked for."""

from __future__ import annotations

import html
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from tunesmith import console
from tunesmith.console import say
from tunesmith.errors import RunError
from tunesmith.reporting import page as pages

FRAME = (
    '<div><iframe title="{title}" sandbox="allow-popups" loading="lazy" srcdoc="{content}" '
    'style="width: 100%; height: {height}px; border: 1px solid rgb(128 128 128 / 40%)"></iframe></div>'
)
"""A report in a cell. What texts of strangers in it could contain runs nothing there."""
LONGEST_NUMBER = 30
"""Characters of a cell of a column of numbers, which is aligned to the right."""


class ReportPage:
    """What has a report on a page."""

    @property
    def page(self) -> Path:
        """The report, an HTML file."""
        raise NotImplementedError

    def show(self, height: int = 600) -> None:
        """Show the report: in the output of a notebook's cell, `height` pixels high; elsewhere in the browser.

        Raises RunError where there is no report, as of a run that has not finished.
        """
        if not self.page.is_file():
            raise RunError(f"there is no report at {self.page}", do="let the run finish, or train again")
        if console.in_notebook():
            content = html.escape(self.page.read_text(encoding="utf-8"))
            frame = FRAME.format(title=html.escape(self.page.parent.name), content=content, height=height)
            console.display({"text/html": frame, "text/plain": f"report: {self.page}"})
        elif not webbrowser.open(self.page.resolve().as_uri()):
            say(f"no browser was found: open {self.page}")


def card(
    title: str, about: str, table: tuple[Sequence[str], Sequence[Sequence[str]]], page: Path, *, text: str = ""
) -> str:
    """Return a result as the output of a cell: a heading, a table, and a conclusion; every text is escaped.

    table: the head, and rows of cells.
    """
    head, rows = table
    is_text = [place == 0 or any(len(row[place]) > LONGEST_NUMBER for row in rows) for place in range(len(head))]
    sides = ["left" if left else "right" for left in is_text]
    return pages.render(
        "notebook.html.j2", title=title, about=about, head=head, rows=rows, sides=sides, text=text, page=str(page)
    )
