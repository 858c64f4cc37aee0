"""training_loss.png: which curves are in it, and where."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from tunesmith.reporting import loss_plot
from tunesmith.reporting.loss_plot import BOTTOM, LEFT, RIGHT, TOP, TRAINING, VALIDATION
from tunesmith.reporting.schema import Curve

FALLING = tuple((step, 2.0 - step / 100) for step in range(1, 101))


def pixels(curve: Curve, color: str) -> np.ndarray:
    """Return rows and columns of the pixels of a colour that lie between the axes."""
    image = Image.open(io.BytesIO(loss_plot.draw(curve)))
    assert (image.format, image.size) == ("PNG", (loss_plot.WIDTH, loss_plot.HEIGHT))
    inside = np.asarray(image)[TOP - 4 : BOTTOM + 6, LEFT : RIGHT + 1].astype(int)
    return np.argwhere((inside == ImageColor.getrgb(color)).all(axis=2))


def test_a_loss_falls_from_left_to_right() -> None:
    places = pixels(Curve(FALLING, (), "loss"), TRAINING)
    assert np.corrcoef(places[:, 0], places[:, 1])[0, 1] > 0.99
    assert np.ptp(places[:, 1]) > 0.95 * (RIGHT - LEFT)
    assert np.ptp(places[:, 0]) > 0.9 * (BOTTOM - TOP)


@pytest.mark.parametrize(("metric", "is_above"), [("loss", True), ("macro_f1", False)])
def test_a_validation_loss_shares_the_axis_of_the_training_loss(metric: str, is_above: bool) -> None:
    """1.8 lies near the top beside losses from 1 to 2; a metric has an axis of its own, which 1.8 is the foot of."""
    places = pixels(Curve(FALLING, ((50, 1.8), (100, 1.9)), metric), VALIDATION)
    lowest = places[:, 0].max() / (BOTTOM - TOP)
    assert lowest < 0.3 if is_above else lowest > 0.9


@pytest.mark.parametrize(
    "curve", [Curve(((1, 2.0),), ((1, 1.5),), "loss"), Curve((), (), "loss"), Curve((), ((1, 0.5),), "f1")]
)
def test_short_and_empty_curves_are_drawn(curve: Curve) -> None:
    assert (len(pixels(curve, TRAINING)) > 0) == bool(curve.loss)
    assert (len(pixels(curve, VALIDATION)) > 0) == bool(curve.validation)
