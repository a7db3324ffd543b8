"""What all figures have in common."""

from matplotlib.text import Text

from co3d.report import style


def assert_legible(fig):
    """No text is too small where a page shows the figure at full width."""
    assert fig.get_figwidth() <= style.WIDTH
    for text in fig.findobj(Text):
        if text.get_visible() and text.get_text():
            assert text.get_fontsize() >= style.SMALLEST, text.get_text()
