"""Makes docs/report.png, the top of the quickstart's report, or of the report that is given. Needs Chromium."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import tunesmith

PICTURE = Path(__file__).parent / "report.png"
WIDTH, MARGIN = 1180, 24


def picture(report: Path) -> bytes:
    """Return a report as a PNG, down to the end of its first table."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        table = page.locator("table").first.bounding_box()
        assert table is not None
        area = {"x": 0.0, "y": 0.0, "width": float(WIDTH), "height": table["y"] + table["height"] + MARGIN}
        shot = page.screenshot(full_page=True, clip=area)
        chromium.close()
    return shot


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        report = (
            Path(sys.argv[1]) if sys.argv[1:] else tunesmith.quickstart([f"output_dir={folder}"]).path / "report.html"
        )
        PICTURE.write_bytes(picture(report))
