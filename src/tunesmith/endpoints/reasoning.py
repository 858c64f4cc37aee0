"""What models write before their reply while they think."""

from __future__ import annotations

import re

REASONING = re.compile(r"^\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def removed(text: str) -> str:
    """Return a reply without the reasoning before it and without white space around it."""
    return REASONING.sub("", text, count=1).strip()
