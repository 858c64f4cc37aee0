"""training_loss.png, drawn with Pillow: importing matplotlib takes longer than all else that is done for a report."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from tunesmith.reporting import charts
from tunesmith.reporting.charts import Axis, Point
from tunesmith.reporting.schema import Curve

WIDTH, HEIGHT = 1200, 675
LEFT, TOP, RIGHT, BOTTOM = 90, 80, 1110, 600
SMOOTH = 2
"""The factor by which it is drawn larger and then reduced, because Pillow's lines have hard edges."""
TRAINING, VALIDATION, TEXT, GRID = "#1f5fa8", "#b5541c", "#333333", "#dddddd"


def draw(trained: Curve) -> bytes:
    """Return a PNG of the loss over steps; beside a validation loss, or the deciding metric on an axis of its own."""
    plot = _Plot()
    curves = [points for points in (trained.loss, trained.validation) if points]
    steps = charts.axis([0.0, *(step for points in curves for step, _ in points)], steps=8, least=1, low=0)
    same = trained.validation_metric == "loss"
    losses = [value for points in (curves if same else [trained.loss]) for _, value in points]
    left = charts.axis(losses, steps=6, least=0.02)
    plot.frame(steps, left)
    plot.text(WIDTH / 2, 22, "Training loss", size=24)
    plot.text((LEFT + RIGHT) / 2, HEIGHT - 22, "step")
    plot.text(LEFT, TOP - 26, "training loss", color=TRAINING, anchor="lm")
    if trained.validation:
        right = left if same else charts.axis([value for _, value in trained.validation], steps=6, least=0.02)
        name = f"validation {charts.spoken(trained.validation_metric)}"
        plot.text(RIGHT, TOP - 26, name, color=VALIDATION, anchor="rm")
        if not same:
            for share, label in right.labels():
                plot.text(RIGHT + 12, _height(share), label, color=VALIDATION, anchor="lm")
        plot.series(trained.validation, steps, right, VALIDATION, dots=True)
    plot.series(trained.loss, steps, left, TRAINING, dots=len(trained.loss) == 1)
    return plot.png()


class _Plot:
    """A picture in the making. Coordinates are those of the finished one."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH * SMOOTH, HEIGHT * SMOOTH), "white")
        self.canvas = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, *, size: int = 18, color: str = TEXT, anchor: str = "mm") -> None:
        font = ImageFont.load_default(size * SMOOTH)
        self.canvas.text((x * SMOOTH, y * SMOOTH), text, color, font, anchor)

    def line(self, points: Sequence[Point], color: str, width: int = 1) -> None:
        self.canvas.line([(x * SMOOTH, y * SMOOTH) for x, y in points], color, width * SMOOTH, joint="curve")

    def frame(self, steps: Axis, values: Axis) -> None:
        """Draw the lines of `values` and the ticks of both."""
        for share, label in values.labels():
            self.line([(LEFT, _height(share)), (RIGHT, _height(share))], GRID)
            self.text(LEFT - 12, _height(share), label, anchor="rm")
        for share, label in steps.labels():
            self.line([(_across(share), BOTTOM), (_across(share), BOTTOM + 6)], TEXT)
            self.text(_across(share), BOTTOM + 22, label)
        self.line([(LEFT, BOTTOM), (RIGHT, BOTTOM)], TEXT)

    def series(self, points: Sequence[Point], steps: Axis, values: Axis, color: str, *, dots: bool) -> None:
        places = [(_across(steps.share(step)), _height(values.share(value))) for step, value in points]
        self.line(places, color, 2)
        for x, y in places if dots else ():
            self.canvas.circle((x * SMOOTH, y * SMOOTH), 5 * SMOOTH, color)

    def png(self) -> bytes:
        file = io.BytesIO()
        self.image.reduce(SMOOTH).save(file, "PNG")
        return file.getvalue()


def _across(share: float) -> float:
    return LEFT + (RIGHT - LEFT) * share


def _height(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share
