"""Controls redraw their picture; without a kernel the picture of their start is left."""

import base64
import io

from PIL import Image

from co3d.report.play import Play
from co3d.report.rules import CONTROLS


class Drawn:
    """Draws a picture as wide as the window, and notes for what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, window, kernel=(1,)):
        self.asked.append((window, kernel))
        return Image.new("RGB", (window, len(kernel)))


def size(png):
    return Image.open(io.BytesIO(png)).size


def test_one_output_holds_the_controls_and_the_picture_to_begin_with():
    play = Play(Drawn(), {"window": 8}, window=[4, 8, 16], kernel=[(1, 2), (3, 4, 5)])
    data = play._repr_mimebundle_(include=None, exclude=None)
    assert data.keys() == {CONTROLS, "image/png", "text/plain"}
    assert size(base64.b64decode(data["image/png"])) == (8, 2)
    assert data["text/plain"] == "<Play at window 8, kernel 1 2>"
    assert data[CONTROLS]["model_id"] == play.box.model_id


def test_a_changed_control_changes_the_picture_and_what_was_seen_is_not_drawn_again():
    draw = Drawn()
    play = Play(draw, window=range(3, 9), kernel=[(1, 2), (3, 4, 5)])
    assert size(play.picture.value) == (3, 2)
    play.controls["window"].value = 5
    assert size(play.picture.value) == (5, 2)
    play.controls["kernel"].value = (3, 4, 5)
    assert size(play.picture.value) == (5, 3)
    assert str(play) == "window 5, kernel 3 4 5"
    play.controls["kernel"].value = (1, 2)
    play.controls["window"].value = 3
    assert size(play.picture.value) == (3, 2)
    assert draw.asked == [(3, (1, 2)), (5, (1, 2)), (5, (3, 4, 5))]
