"""Makes docs/report.png, the top of the quickstart's report, or of the report that is given. Needs Chromium."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import tunesmith

PICTURE = Path(__file__).parent / "report.png"
SIZE = {"width": 1180, "height": 880}
COLOURS = 128


def picture(report: Path) -> bytes:
    """Return the top of a report as a PNG with few colours, which is a third of the size."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport=SIZE, color_scheme="light")
        page.goto(report.resolve().as_uri())
        shot = page.screenshot()
        chromium.close()
    written = io.BytesIO()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        report = (
            Path(sys.argv[1]) if sys.argv[1:] else tunesmith.quickstart([f"output_dir={folder}"]).path / "report.html"
        )
        PICTURE.write_bytes(picture(report))
