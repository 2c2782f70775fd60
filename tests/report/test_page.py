"""The page is whole by itself, says what it should, and leaves out what a model does not have."""

import base64
import io
import math
import re

import pytest
import torch
from PIL import Image

from pyro_mivae import VAE, CatVAE, InfoCatVAE, InfoGAN
from pyro_mivae.errors import PyroMivaeWarning, ShapeError
from pyro_mivae.plots import new_figure
from pyro_mivae.progress import listening
from pyro_mivae.report import Panel, latent_space, samples
from pyro_mivae.training import History

from .pages import CURVES, LABELS, data_of, history, report

FEW = (samples.samples, samples.reconstructions)  # where the pictures are not what is tested


def mine(data):
    yield Panel("mine", "Mine", "What it is.", "This & that.", new_figure(1.0)[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page with all of its pictures drawn, and its folder."""
    folder = tmp_path_factory.mktemp("pages") / "new"
    torch.manual_seed(0)
    vae = InfoCatVAE(data_shape=(1, 8, 8), num_categories=3, latent_dim=6)
    metrics = {"elbo": -9.0, "rate": 3.0, "mi_c_lower": 1.0, "mi_c_upper": 1.0, "kl_c": 1.0}
    metrics |= {"kl_z": 2.1} | {f"kl_z[{d}]": d / 7 for d in range(6)}
    data = data_of(vae, None, LABELS, metrics, history("kl_c", "mi_c_mean"))
    return report(folder, data), folder


def test_the_whole_page_of_a_model_with_categories(whole):
    page, folder = whole
    assert page.panels == [
        "loss_curves",  # on the first screen
        "samples",
        "reconstructions",
        "traversals_z",
        "confusion",
        "sandwich",
        "latent_space_by_category",
        "interpolations",  # folded from here on
        "radii",
        "information",
        "information_curves",
    ]
    folded = [attrs for attrs in page.all("details") if attrs.get("class") == "card folded"]
    assert len(folded) == 4
    assert {path.stem for path in folder.glob("*.png")} == set(page.panels)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"\{\w+\.\w+\}", text)  # a sentence whose parts are not filled in


def test_every_image_is_inside_the_page_and_decodes(whole):
    page, folder = whole
    images, files = page.all("img"), set()
    assert [i["class"] for i in images] == ["on-light", "on-dark"] * len(page.panels)
    for source in images:
        head, data = source["src"].split(",")
        assert head == "data:image/webp;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        image.load()
        assert image.width in (600, 1000)
        if source["class"] == "on-light":
            files.add(image.convert("RGB").tobytes())
    drawn = [Image.open(path) for path in folder.glob("*.png")]
    assert files == {picture.convert("RGB").tobytes() for picture in drawn}
    assert len(page.html) < 500_000


def test_nothing_is_fetched_and_nothing_runs(whole):
    page, _ = whole
    assert not page.all("script")
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not re.search(r"""(src|href|srcset)=["']?(https?:)?//""", page.html)
    assert "@import" not in page.html
    assert "url(" not in page.html


def test_light_dark_and_phone(whole):
    page, _ = whole
    assert "prefers-color-scheme: dark" in page.html
    assert 'name="viewport" content="width=device-width' in page.html
    assert "@media print" in page.html


def test_headings_are_in_order_and_every_picture_is_described(whole):
    page, _ = whole
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    for image in page.all("img"):  # what a dark page lays over a picture says nothing more
        assert len(image["alt"]) > 40 if image["class"] == "on-light" else image["alt"] == ""


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x>', "{{ 7 * 7 }}"])
def test_hostile_texts_are_escaped(tmp_path, vae, hostile):
    def panel(data):
        yield Panel("mine", hostile, hostile, hostile, new_figure(1.0)[0])

    config = {"data": hostile, hostile: {"nested": hostile}, "command": f"run {hostile!r}"}
    data = data_of(vae, metrics={hostile: 1.0})
    page = report(tmp_path, data, config=config, protocol={hostile: [hostile]}, panels=(panel,))
    assert not page.all("script")
    assert len(page.all("img")) == 2
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert page.all("img")[0]["alt"] == f"{hostile}. {hostile}"
    assert hostile in page.text
    assert f"{hostile}.nested" in page.text


@pytest.mark.usefixtures("quick")
def test_no_labels_no_comparison_with_labels(tmp_path, infocat):
    drawn = (samples.samples, latent_space.confusion, latent_space.latent_space)
    page = report(tmp_path, data_of(infocat), panels=drawn)
    assert page.panels == ["samples", "latent_space_by_category"]
    assert "label" not in page.text


@pytest.mark.usefixtures("quick")
def test_no_category_no_talk_of_categories(tmp_path, vae):
    data = data_of(vae, metrics={"kl_z": 1.0}, columns=history("kl_z"))
    page = report(tmp_path, data)
    panels = ["samples", "reconstructions", "traversals_z", "latent_space", "information"]
    assert page.panels == [CURVES[0], *panels, CURVES[1]]
    assert "categor" not in page.text.lower()


def players(*columns):
    names = ("loss", "loss_discriminator", "loss_generator", *columns)
    return History({"epoch": e, **dict.fromkeys(names, 1.0 / e)} for e in (1, 2, 3))


@pytest.mark.usefixtures("quick")
def test_a_game_shows_its_players_and_what_its_codes_do(tmp_path):
    gan = InfoGAN((1, 8, 8), latent_dim=5, num_categories=3)
    metrics = {"elbo": math.nan, "distortion": math.nan, "kl_c": 0.5, "mi_c_lower": 0.4}
    metrics |= {"mi_c_upper": 0.5}
    columns = players("mi_c_mean", "mi_u_mean")
    page = report(tmp_path, data_of(gan, None, LABELS, metrics, columns))
    assert page.panels == [
        "loss_curves",
        "samples",
        "reconstructions",
        "traversals_u",
        "confusion",
        "sandwich",
        "latent_space_by_category",
        "information_curves",
    ]
    assert "Training: the players" in page.text
    assert "The noise z is at its mean in all pictures" in page.text
    assert "ELBO" not in page.text  # among the numbers to read first; all of them have its key
    assert "KL of" not in page.text.replace("KL of c.", "")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "options", [{"num_categories": 0, "code_dim": 1}, {"code_dim": 0, "saturating": True}]
)
def test_a_game_with_one_kind_of_code(tmp_path, options):
    gan = InfoGAN((1, 8, 8), latent_dim=5, **options)
    page = report(tmp_path, data_of(gan, columns=players()))
    assert ("traversals_u" in page.panels) == ("num_categories" in options)
    assert "loss_curves" in page.panels


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("categorical", ["enumerate", "sample", "soft", "gumbel"])
def test_every_way_to_treat_the_category(tmp_path, categorical):
    vae = CatVAE(data_shape=(1, 8, 8), num_categories=2, categorical=categorical)
    assert "samples" in report(tmp_path, data_of(vae), panels=FEW).panels


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shape", [(3, 12, 9), (2, 8, 8), (20,), (1,)])
def test_any_data_shape(tmp_path, shape):
    vae = VAE(data_shape=shape, latent_dim=2, likelihood="gaussian")
    drawn = (*FEW, samples.traversals)
    page = report(tmp_path, data_of(vae, torch.randn(12, *shape)), panels=drawn)
    assert page.panels == ["samples", "reconstructions", "traversals_z"]
    assert ("image" in page.text) == (len(shape) == 3)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_data_and_no_history(tmp_path, infocat, n):
    page = report(tmp_path, data_of(infocat, torch.rand(n, 1, 8, 8), LABELS[:n]))
    assert {"reconstructions", "confusion", "latent_space_by_category"} <= set(page.panels)
    assert not set(CURVES) & set(page.panels)


def text_of(folder, vae, metrics, x=None):
    return report(folder, data_of(vae, x, metrics=metrics), panels=()).text


def test_the_numbers_come_first_with_their_bounds_and_errors(tmp_path, infocat):
    metrics = {"elbo": -25.25, "elbo_se": 0.5, "distortion": 20.0, "rate": 5.25, "kl_z": 3.0}
    metrics |= {"kl_c": math.nan, "mi_c_lower": 1.9, "mi_c_upper": 2.05, "kl_z_se": 0.1}
    metrics |= {"cluster_accuracy": 0.8125, "categories_used": 3.0}
    text = text_of(tmp_path, infocat, metrics)
    for written in (
        "An image costs 25.2 nats: 5.2 for its code, and 20.0",
        "−25.25 nats ± 0.50",
        "KL of c not defined",
        "I(x; c) 1.90 – 2.05 nats",
        "log 3 = 1.10",
        "Clustering accuracy 81.2 %",
        "3 of 3",
        "cross-entropies",
    ):
        assert written in text
    assert text.index("ELBO") < text.index("The objective") < text.index("The pictures")
    assert "elbo_se" not in text  # beside its number


def test_the_page_says_what_was_trained_and_for_how_long(tmp_path):
    vae = CatVAE((1, 8, 8), num_categories=3, warm_start=700)
    rows = [{"epoch": e, "step": 12 * e, "seconds": 61.0, "loss": 1.0} for e in (1, 2)]
    config = {"model": {"latent_dim": 6}}
    known = {"columns": History(rows), "num_train": 1438}
    text = report(tmp_path, data_of(vae, **known), config=config, panels=()).text
    size = sum(p.numel() for p in vae.parameters())
    assert (
        f"CatVAE with mlp networks of {size:,} parameters. It was trained on 1,438 images of "
        "1 × 8 × 8, for 2 epochs or 24 steps, in 2 minutes. Before that, q(c | x) alone was "
        "trained without the decoder: the better of 2 starts, of 700 steps."
    ) in text
    assert "Before that" not in text_of(tmp_path, CatVAE((1, 8, 8), warm_start=0), {})


def test_bounds_that_are_far_apart_say_why(tmp_path, vae):
    text = text_of(tmp_path, vae, {"mi_z_lower": 3.1, "mi_z_upper": 9.0})
    assert "3.10 – 9.00 nats" in text
    assert "log 24 = 3.18" in text
    text = text_of(tmp_path, vae, {"mi_z_lower": math.nan, "mi_z_upper": 9.0})
    assert "≤ 9.00 nats" in text
    assert "far apart" not in text


def test_critic_stands_beside_the_bounds(tmp_path, vae):
    metrics = {"mi_z_lower": 3.0, "mi_z_upper": 3.1, "mi_z_critic": 0.01, "mi_z_critic_se": 0.02}
    assert "I(x; z), by the critic 0.01 nats ± 0.02" in text_of(tmp_path, vae, metrics)


def test_binary_data_under_a_bernoulli_have_a_log_probability(tmp_path, infocat):
    x = torch.rand(24, 1, 8, 8).round()
    assert "cross-entropies" not in text_of(tmp_path, infocat, {"elbo": -9.0}, x)


def test_the_objective_the_protocol_and_the_command(tmp_path, infocat):
    command = (
        "pyro-mivae train infocat --data 'my digits.npz' --epochs 3 --batch-size 128 --lr 0.001"
    )
    config = {"data": "/a/b/my digits.npz", "command": command, "training": {"epochs": 3}}
    protocol = {"probe": {"split": "half"}}
    data = data_of(infocat, columns=history("weight_kl_z"))
    page = report(tmp_path, data, config=config, protocol=protocol, panels=())
    assert "the weight that holds kl_z ended at 10" in page.text
    assert "J = E_q[log p(x|code)]" in page.text
    assert "probe.split half" in page.text
    assert "training.epochs 3" in page.text
    assert command in page.texts
    assert "on my digits.npz" in page.text


@pytest.mark.usefixtures("quick")
def test_the_report_only_reads(tmp_path, infocat):
    infocat.train()
    before = {name: value.clone() for name, value in infocat.state_dict().items()}
    state = torch.get_rng_state()
    x = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = (samples.samples, samples.traversals)
    for folder in ("a", "b"):
        data = data_of(infocat, x)
        infocat.train()
        report(tmp_path / folder, data, panels=drawn)
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(5)
        state = torch.get_rng_state()
    assert infocat.training
    assert all(torch.equal(value, before[name]) for name, value in infocat.state_dict().items())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.usefixtures("quick")
def test_panels_can_be_added(tmp_path, vae):
    told = []
    with listening(lambda *step: told.append(step)):
        page = report(tmp_path, data_of(vae), panels=(samples.samples, mine))
    assert page.panels == ["samples", "mine"]
    assert told == [("pictures", 1, 2), ("pictures", 2, 2)]
    assert "This & that." in page.text


def test_a_picture_that_fails_leaves_a_line_in_its_place(tmp_path, vae):
    def failing(data):
        yield from mine(data)
        raise ValueError("<no>\nway")

    def undrawable(data):
        figure, ax = new_figure(1.0)
        ax.set_title("x").draw = lambda renderer: 1 / 0
        yield Panel("second", "Second", "What it is.", "That.", figure)
        yield Panel("third", "Third", "What it is.", "That.", new_figure(1.0)[0])

    with pytest.warns(PyroMivaeWarning, match="could not be drawn") as caught:
        page = report(tmp_path, data_of(vae), panels=(failing, undrawable))
    assert [str(w.message) for w in caught] == [
        "the picture 'Failing' could not be drawn: ValueError: <no> way",
        "the picture 'Second' could not be drawn: ZeroDivisionError: division by zero",
    ]
    assert page.panels == ["mine", "no_failing", "second", "third"]
    assert "Failing This picture could not be drawn: ValueError: <no> way" in page.text
    assert {path.name for path in tmp_path.glob("*.png")} == {"mine.png", "third.png"}
    assert len(page.all("img")) == 4


def test_stopping_is_no_picture_that_fails(tmp_path, vae):
    def stopped(data):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        report(tmp_path, data_of(vae), panels=(stopped,))


@pytest.mark.usefixtures("quick")
def test_codes_that_do_not_vary_have_no_neighbours(tmp_path, vae):
    """The picture of 60 codes all alike would end the process."""
    drawn = (latent_space.latent_space, latent_space.neighbouring_codes)
    with pytest.warns(PyroMivaeWarning, match="of 60 codes 1 differ from each other"):
        page = report(tmp_path, data_of(vae, torch.zeros(60, 1, 8, 8)), panels=drawn)
    assert page.panels == ["latent_space", "no_neighbouring_codes"]
    assert "This picture could not be drawn: of 60 codes 1 differ" in page.text


def test_what_stands_out_comes_first_or_not_at_all(tmp_path, infocat):
    text = text_of(tmp_path, infocat, {"kl_z": 0.003, "mi_z_lower": 0.0, "mi_z_upper": 0.002})
    assert "z is collapsed: it holds 0.002 nats" in text
    assert text.index("Diagnoses") < text.index("z is collapsed") < text.index("The numbers")
    assert "Diagnoses" not in text_of(tmp_path, infocat, {})


def test_numbers_of_single_dimensions_are_folded_by_themselves(tmp_path, infocat):
    metrics = {"rate": 4.0, "occupancy_1": 0.25, "kl_z[0]": 1.25, "kl_z[0]_se": 0.1}
    metrics |= {"mi_c[2]_lower": 0.5}
    page = report(tmp_path, data_of(infocat, metrics=metrics), panels=())
    assert len(page.all("details")) == 3
    assert "All 2 numbers rate 4 nats KL of all sites" in page.text
    assert "occupancy_1 0.25 Share of the data in category B." in page.text
    assert "2 numbers of single dimensions and categories kl_z[0] 1.25 nats ± 0.1" in page.text
    assert "KL of dimension 0 of z." in page.text
    meaning = "Information that category C of c holds about the data, at least."
    assert meaning in page.text


def test_shapes_that_do_not_fit(infocat):
    factors = {"factors": torch.zeros(24, 1), "factor_names": []}
    with pytest.raises(ShapeError, match=r"expected \(3, 1, 8, 8\)"):
        data_of(infocat, torch.rand(3, 1, 9, 9))
    with pytest.raises(ShapeError, match="one label per datum"):
        data_of(infocat, torch.rand(3, 1, 8, 8), LABELS)
    with pytest.raises(ShapeError, match="a row per datum and a name per column"):
        data_of(infocat, **factors)
