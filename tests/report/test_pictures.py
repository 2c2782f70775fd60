"""Pictures of the page: few bytes, the same look on light and dark pages, colours kept."""

import io
import re
from importlib import resources

import pytest
import torch
from PIL import Image, ImageChops, ImageColor, ImageStat

from pyro_mivae.plots import grid_figure, new_figure, plot_samples, render_png
from pyro_mivae.report import Panel, pictures


def read(picture):
    return Image.open(io.BytesIO(picture)).convert("RGBA")


def test_pictures_are_small_and_look_the_same():
    figure, ax = new_figure(2.0)
    ax.imshow(torch.rand(40, 40).numpy(), cmap="Greys_r")
    (picture,) = pictures.render_panels(lambda: iter([Panel("a", "A", "b", "c", figure)]))
    shown = read(picture.light)
    for scheme, ground in (("light", "#ffffff"), ("dark", "#161b22")):
        if scheme == "dark":
            shown.alpha_composite(read(picture.dark))
        whole = Image.open(io.BytesIO(render_png(figure, dark=scheme == "dark"))).convert("RGBA")
        laid = Image.new("RGBA", whole.size, ground)
        laid.alpha_composite(whole)
        difference = ImageChops.difference(laid.convert("RGB"), shown.convert("RGB"))
        assert max(high for _, high in difference.getextrema()) < 25
        assert shown.convert("RGB").getpixel((0, 0)) == ImageColor.getrgb(ground)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_page_holds_many_images_once(channels):
    noise = torch.rand(100, channels, 34, 34)
    soft = torch.nn.functional.avg_pool2d(noise, 7, stride=1)  # 28 x 28
    soft = (soft - soft.amin()) / (soft.amax() - soft.amin())

    def many():
        figure, ax = grid_figure(10, 10, soft.shape[1:])
        yield Panel("many", "Many", "", figure=plot_samples(ax, soft).figure)

    (picture,) = pictures.render_panels(many)
    assert len(picture.png) > 90_000  # without loss
    assert len(picture.light) < 30_000
    assert len(picture.dark) < 18_000
    assert ImageStat.Stat(read(picture.dark)).mean[3] < 100  # gaps and edges, of 255


def test_the_ground_of_dark_pictures_is_that_of_the_card():
    css = resources.files("pyro_mivae.report").joinpath("style.css").read_text()
    assert re.findall(r"--card: (#\w+)", css) == [pictures._WHITE, pictures._DARK_CARD]


def test_colour_images_keep_their_colours():
    images = torch.rand(40, 3, 3, 3).repeat_interleave(9, -1).repeat_interleave(9, -2)

    def patches():
        figure, ax = grid_figure(4, 10, images.shape[1:])
        yield Panel("patches", "Patches", "", figure=plot_samples(ax, images).figure)

    (panel,) = pictures.render_panels(patches)
    drawn = Image.open(io.BytesIO(panel.png)).convert("RGB")
    colours = torch.tensor([colour for _, colour in drawn.getcolors(2**20)]).float()
    wanted = images[:, :, ::9, ::9].movedim(1, -1).reshape(-1, 3) * 255
    assert float(torch.cdist(wanted, colours).min(1).values.max()) < 2
    shown = Image.open(io.BytesIO(panel.light)).convert("RGB").resize(drawn.size)
    assert max(ImageStat.Stat(ImageChops.difference(drawn, shown)).mean) < 13
