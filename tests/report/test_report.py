"""The page is whole by itself, says what it should, and leaves out what a model does not have."""

import base64
import io
import math
import re
from html.parser import HTMLParser
from importlib import resources

import pytest
import torch
from PIL import Image, ImageChops, ImageColor

from pyro_mivae import VAE, CatVAE, InfoCatVAE, InfoGAN, InfomaxVAE
from pyro_mivae.errors import PyroMivaeWarning, ShapeError
from pyro_mivae.plots import new_figure, render_png
from pyro_mivae.report import PANELS, Panel, Subject, game, panels, render, write_report
from pyro_mivae.report.render import render_panel
from pyro_mivae.training.history import History

VOID = {"meta", "link", "img", "br"}
CURVES = ["loss_curves", "information_curves"]


class Page(HTMLParser):
    """A parsed page, which fails on tags that do not pair."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def panels(self):
        return [attrs["id"] for attrs in self.all("article")]


def history(*columns):
    rows = [dict.fromkeys(("loss", "distortion", *columns), 30.0 / e) for e in (1, 2, 3)]
    return History({"epoch": e + 1, **row, "elbo": -row["loss"]} for e, row in enumerate(rows))


def report(folder, vae, x=None, *, labels=None, metrics=None, config=None, **options):
    x = torch.rand(24, *vae.data_shape) if x is None else x
    path = write_report(
        folder,
        vae=vae,
        history=options.pop("history", history("kl_z")),
        metrics=metrics or {},
        protocol=options.pop("protocol", {"split": "test"}),
        x=x,
        labels=labels,
        config=config,
        **options,
    )
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def infocat():
    return InfoCatVAE(data_shape=(1, 8, 8), num_categories=3, latent_dim=6)


@pytest.fixture
def drawn():
    """Given to the tests that look at the pictures."""


@pytest.fixture(autouse=True)
def pixels(request):
    """Drawing takes most of the time of a report."""
    if "drawn" not in request.fixturenames:
        request.getfixturevalue("quick")


LABELS = torch.arange(24) % 4
FEW = (panels.samples, panels.reconstructions)  # where the pictures are not what is tested


def test_the_whole_page_of_a_model_with_categories(tmp_path, infocat):
    page = report(tmp_path / "new", infocat, labels=LABELS, history=history("kl_c", "mi_c_mean"))
    assert page.panels == [
        "samples",
        "interpolations",
        "radii",
        "reconstructions",
        "traversals_z",
        "information",
        "occupancy",
        "confusion",
        "latent_space_by_category",
        "latent_space_by_label",
        *CURVES,
    ]
    assert [a["href"] for a in page.all("a")] == [f"#{panel}" for panel in page.panels]
    assert (tmp_path / "new" / "report.html").is_file()
    pngs = {path.stem for path in (tmp_path / "new").glob("*.png")}
    assert pngs == set(page.panels)


def test_every_image_is_inside_the_page_and_decodes(tmp_path, infocat, drawn):
    page = report(tmp_path, infocat, labels=LABELS)
    images, files = page.all("img"), set()
    assert [i["class"] for i in images] == ["on-light", "on-dark"] * len(page.panels)
    for source in images:
        head, data = source["src"].split(",")
        assert head == "data:image/png;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        image.load()
        assert image.width == 1000
        if source["class"] == "on-light":
            files.add(base64.b64decode(data))
    assert files == {path.read_bytes() for path in tmp_path.glob("*.png")}
    assert all(i["alt"] for i in images)


def test_nothing_is_fetched_and_nothing_runs(tmp_path, infocat):
    page = report(tmp_path, infocat, panels=FEW)
    html = (tmp_path / "report.html").read_text()
    assert not page.all("script")
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not re.search(r"""(src|href|srcset)=["']?(https?:)?//""", html)
    assert "@import" not in html
    assert "url(" not in html


def test_light_dark_and_phone(tmp_path, infocat):
    report(tmp_path, infocat, panels=FEW)
    html = (tmp_path / "report.html").read_text()
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport" content="width=device-width' in html
    assert "@media print" in html


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x>', "{{ 7 * 7 }}"])
def test_hostile_texts_are_escaped(tmp_path, infocat, hostile):
    config = {"data": hostile, hostile: {"nested": hostile}, "command": f"run {hostile!r}"}
    page = report(
        tmp_path,
        infocat,
        labels=LABELS,
        config=config,
        metrics={hostile: 1.0},
        protocol={hostile: [hostile]},
        class_names=[hostile] * 4,
        panels=FEW,
    )
    assert not page.all("script")
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert hostile in page.text
    assert f"{hostile}.nested" in page.text


def test_no_labels_no_comparison_with_labels(tmp_path, infocat):
    drawn = (panels.samples, panels.confusion, panels.latent_space)
    page = report(tmp_path, infocat, panels=drawn)
    assert "confusion" not in page.panels
    assert "latent_space_by_label" not in page.panels
    assert "latent_space_by_category" in page.panels
    assert "label" not in page.text


def test_no_category_no_talk_of_categories(tmp_path):
    page = report(tmp_path, VAE(data_shape=(1, 8, 8), latent_dim=3))
    panels = ["samples", "reconstructions", "traversals_z", "information", "latent_space"]
    assert page.panels == panels + CURVES
    assert "categor" not in page.text.lower()


def players(*columns):
    names = ("loss", "loss_discriminator", "loss_generator", *columns)
    return History({"epoch": e, **dict.fromkeys(names, 1.0 / e)} for e in (1, 2, 3))


def test_a_game_shows_its_players_and_what_its_codes_do(tmp_path):
    gan = InfoGAN((1, 8, 8), latent_dim=5, num_categories=3)
    metrics = {"elbo": math.nan, "distortion": math.nan, "kl_c": 0.5, "mi_c_lower": 0.4}
    metrics |= {"mi_c_upper": 0.5}
    page = report(
        tmp_path, gan, labels=LABELS, metrics=metrics, history=players("mi_c_mean", "mi_u_mean")
    )
    assert page.panels == [
        "samples",
        "reconstructions",
        "traversals_u",
        "sandwich",
        "occupancy",
        "confusion",
        "latent_space_by_category",
        "latent_space_by_label",
        *CURVES,
    ]
    assert "Training: the players" in page.text
    assert "The noise z stands at its mean throughout" in page.text
    assert "ELBO" not in page.text  # among the numbers to read first; all of them have its key
    assert "KL of" not in page.text.replace("KL of c.", "")


@pytest.mark.parametrize(
    "options", [{"num_categories": 0, "code_dim": 1}, {"code_dim": 0, "saturating": True}]
)
def test_a_game_with_one_kind_of_code(tmp_path, options):
    gan = InfoGAN((1, 8, 8), latent_dim=5, **options)
    page = report(tmp_path, gan, history=players())
    assert ("traversals_u" in page.panels) == ("num_categories" in options)
    assert "loss_curves" in page.panels


def test_what_a_code_changes_is_drawn_from_the_prior():
    """Rows of one code differ in noise; along a row nothing but the code moves."""
    gan = InfoGAN((1, 8, 8), latent_dim=4, code_dim=2, num_categories=3).eval()
    seen = []
    gan.decode = lambda codes, n: seen.append(codes) or torch.zeros(n, 1, 8, 8)
    about = subject(gan, torch.rand(24, 1, 8, 8), LABELS)
    (panel,) = game.code_traversals(about)
    (codes,) = seen
    assert panel.key == "traversals_u"
    u = codes["u"].unflatten(0, (-1, 9))
    moving = (u.diff(dim=1).abs() > 1e-6).any(1)  # (rows, dims)
    half = len(u) // 2
    assert moving.tolist() == [[True, False]] * half + [[False, True]] * half
    assert u[0, 0, 0] < -0.9
    assert u[0, -1, 0] > 0.9
    for site in ("z", "c"):
        rows = codes[site].unflatten(0, (-1, 9))
        assert (rows == rows[:, :1]).all(), site
        assert not torch.equal(rows[0], rows[1]), site


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("code_dim", [1, 2])
def test_a_continuous_c_has_traversals_of_its_own(tmp_path, deterministic, code_dim):
    vae = InfomaxVAE(
        data_shape=(1, 8, 8), latent_dim=6, code_dim=code_dim, deterministic=deterministic
    )
    drawn = (panels.latent_space, panels.traversals, panels.information_bar)
    page = report(tmp_path, vae, labels=LABELS, panels=drawn)
    assert {"traversals_c", "traversals_z", "latent_space_by_label"} <= set(page.panels)
    assert ("c is deterministic" in page.text) == deterministic


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("code_dim", "names"), [(1, ["c moves"] * 4), (3, 3), (7, 4)])
def test_what_each_part_of_the_code_draws(deterministic, code_dim, names):
    vae = InfomaxVAE((1, 8, 8), latent_dim=9, code_dim=code_dim, deterministic=deterministic)
    about = subject(vae, torch.rand(24, 1, 8, 8), LABELS)
    about.metrics = {"reconstruction_r2": 0.5, "reconstruction_r2_z": -0.001}
    (panel,) = panels.reconstructions(about)
    (ax,) = panel.figure.axes
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows[:4] == ["original", "c and z  R² 0.50", "c alone", "z alone  R² 0.00"]
    if isinstance(names, int):
        sizes = about.codes["c"].var(0) if deterministic else about.site_nats["c"]
        names = [f"c{dim} moves" for dim in sizes.argsort(descending=True)[:names].tolist()]
    assert rows[4:] == names
    assert "share of the variance" in panel.sentence


@pytest.mark.parametrize("categorical", ["enumerate", "sample", "soft", "gumbel"])
def test_every_way_to_treat_the_category(tmp_path, categorical):
    vae = CatVAE(data_shape=(1, 8, 8), num_categories=2, categorical=categorical)
    assert "samples" in report(tmp_path, vae, panels=FEW).panels


@pytest.mark.parametrize("shape", [(3, 12, 9), (2, 8, 8), (20,), (1,)])
def test_any_data_shape(tmp_path, shape):
    vae = VAE(data_shape=shape, latent_dim=2, likelihood="gaussian")
    drawn = (*FEW, panels.traversals)
    page = report(tmp_path, vae, torch.randn(12, *shape), panels=drawn)
    assert page.panels == ["samples", "reconstructions", "traversals_z"]
    assert ("image" in page.text) == (len(shape) == 3)


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_data_and_no_history(tmp_path, infocat, n):
    page = report(tmp_path, infocat, torch.rand(n, 1, 8, 8), labels=LABELS[:n], history=History())
    assert not set(CURVES) & set(page.panels)


def test_the_numbers_come_first_with_their_bounds_and_errors(tmp_path, infocat):
    metrics = {"elbo": -25.25, "elbo_se": 0.5, "distortion": 20.0, "rate": 5.25, "kl_z": 3.0}
    metrics |= {"kl_c": math.nan, "mi_c_lower": 1.9, "mi_c_upper": 2.05, "kl_z_se": 0.1}
    metrics |= {"cluster_accuracy": 0.8125, "categories_used": 3.0}
    text = report(tmp_path, infocat, metrics=metrics, labels=LABELS, panels=FEW).text
    for written in (
        "An image costs 25.2 nats: 5.2 for its code, and 20.0",
        "−25.25 nats ± 0.50",
        "KL of c not defined",
        "I(x; c) 1.90 – 2.05 nats",
        "log 3 = 1.10",
        "Clustering accuracy 81.2 %",
        "3 of 3",
        "cross-entropy",
    ):
        assert written in text
    assert text.index("ELBO") < text.index("The objective") < text.index("The pictures")
    assert "elbo_se" not in text  # beside its number


def test_bounds_that_are_far_apart_say_why(tmp_path):
    vae, metrics = VAE(data_shape=(1, 8, 8)), {"mi_z_lower": 3.1, "mi_z_upper": 9.0}
    text = report(tmp_path, vae, metrics=metrics, panels=()).text
    assert "3.10 – 9.00 nats" in text
    assert "log 24 = 3.18" in text
    metrics |= {"mi_z_lower": math.nan}
    text = report(tmp_path, vae, metrics=metrics, panels=()).text
    assert "≤ 9.00 nats" in text
    assert "far apart" not in text


def test_critic_stands_beside_the_bounds(tmp_path):
    vae = VAE(data_shape=(1, 8, 8))
    metrics = {"mi_z_lower": 3.0, "mi_z_upper": 3.1, "mi_z_critic": 0.01, "mi_z_critic_se": 0.02}
    text = report(tmp_path, vae, metrics=metrics, panels=()).text
    assert "I(x; z), by the critic 0.01 nats ± 0.02" in text


def test_binary_data_under_a_bernoulli_have_a_log_probability(tmp_path, infocat):
    x = torch.rand(24, 1, 8, 8).round()
    assert (
        "cross-entropy"
        not in report(tmp_path, infocat, x, metrics={"elbo": -9.0}, panels=FEW).text
    )


def test_the_objective_the_protocol_and_the_command(tmp_path, infocat):
    command = (
        "pyro-mivae train infocat --data 'my digits.npz' --epochs 3 --batch-size 128 --lr 0.001"
    )
    config = {"data": "/a/b/my digits.npz", "command": command, "training": {"epochs": 3}}
    page = report(
        tmp_path, infocat, config=config, protocol={"probe": {"split": "half"}}, panels=FEW
    )
    assert "J = E_q[log p(x|code)]" in page.text
    assert "probe.split half" in page.text
    assert "training.epochs 3" in page.text
    (shown,) = [t for t in page.texts if t.startswith("pyro-mivae train")]
    assert max(map(len, shown.splitlines())) < 60
    assert shown.replace("\\\n  ", "") == command
    assert "on my digits.npz" in page.text


def test_the_report_only_reads(tmp_path, infocat):
    infocat.train()
    before = {name: value.clone() for name, value in infocat.state_dict().items()}
    state = torch.get_rng_state()
    x = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = (panels.samples, panels.traversals)
    report(tmp_path / "a", infocat, x, panels=drawn)
    torch.manual_seed(5)
    report(tmp_path / "b", infocat, x, panels=drawn)
    torch.set_rng_state(state)
    assert infocat.training
    assert all(torch.equal(value, before[name]) for name, value in infocat.state_dict().items())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_random_numbers_are_left_alone(tmp_path, infocat):
    x = torch.rand(24, 1, 8, 8)
    state = torch.get_rng_state()
    report(tmp_path, infocat, x, panels=FEW)
    assert torch.equal(state, torch.get_rng_state())


def test_panels_can_be_added(tmp_path, infocat):
    def mine(subject):
        yield Panel("mine", "Mine", "What it is.", "This & that.", new_figure(1.0)[0])

    page = report(tmp_path, infocat, panels=(*PANELS[:1], mine))
    assert page.panels == ["samples", "mine"]
    assert "This & that." in page.text


def test_a_picture_that_fails_leaves_a_line_in_its_place(tmp_path, infocat, drawn):
    def failing(subject):
        yield Panel("first", "First", "What it is.", "That.", new_figure(1.0)[0])
        raise ValueError("<no>\nway")

    def undrawable(subject):
        figure, ax = new_figure(1.0)
        ax.set_title("x").draw = lambda renderer: 1 / 0
        yield Panel("second", "Second", "What it is.", "That.", figure)
        yield Panel("third", "Third", "What it is.", "That.", new_figure(1.0)[0])

    with pytest.warns(PyroMivaeWarning, match="could not be drawn") as caught:
        page = report(tmp_path, infocat, panels=(failing, undrawable))
    assert [str(w.message) for w in caught] == [
        "the picture 'Failing' could not be drawn: ValueError: <no> way",
        "the picture 'Second' could not be drawn: ZeroDivisionError: division by zero",
    ]
    assert page.panels == ["first", "no_failing", "second", "third"]
    assert [a["href"] for a in page.all("a")] == [f"#{panel}" for panel in page.panels]
    assert "Failing This picture could not be drawn: ValueError: <no> way" in page.text
    assert {path.name for path in tmp_path.glob("*.png")} == {"first.png", "third.png"}
    assert len(page.all("img")) == 4


def test_stopping_is_no_picture_that_fails(tmp_path, infocat):
    def stopped(subject):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        report(tmp_path, infocat, panels=(stopped,))


def test_codes_that_do_not_vary_have_no_neighbours(tmp_path):
    """The picture of 60 codes all alike would end the process."""
    vae, x = VAE((1, 8, 8), latent_dim=3), torch.zeros(60, 1, 8, 8)
    drawn = (panels.latent_space, panels.neighbouring_codes)
    with pytest.warns(PyroMivaeWarning, match="of 60 codes 1 differ from each other"):
        page = report(tmp_path, vae, x, panels=drawn)
    assert page.panels == ["latent_space", "no_neighbouring_codes"]
    assert "This picture could not be drawn: of 60 codes 1 differ" in page.text


def test_what_stands_out_comes_first_or_not_at_all(tmp_path, infocat):
    metrics = {"kl_z": 0.003, "mi_z_lower": 0.0, "mi_z_upper": 0.002}
    text = report(tmp_path, infocat, metrics=metrics, panels=()).text
    assert "z is collapsed: it holds 0.002 nats" in text
    assert text.index("What stands out") < text.index("z is collapsed") < text.index("The numbers")
    assert "What stands out" not in report(tmp_path, infocat, panels=()).text


def test_numbers_of_single_dimensions_are_folded_by_themselves(tmp_path, infocat):
    metrics = {"rate": 4.0, "kl_z[0]": 1.25, "kl_z[0]_se": 0.1, "mi_c[2]_lower": 0.5}
    page = report(tmp_path, infocat, metrics=metrics, panels=())
    assert len(page.all("details")) == 2
    assert "All 1 numbers rate" in page.text
    assert "2 numbers of single dimensions and categories kl_z[0]" in page.text
    assert "KL of dimension 0 of z." in page.text
    assert (
        "Information that dimension, or category, 2 of c holds about the data, at least."
        in page.text
    )


def test_headings_are_in_order_and_every_picture_is_described(tmp_path, infocat):
    metrics = {"elbo": -9.0, "mi_c_lower": 1.0, "mi_c_upper": 1.0}
    page = report(tmp_path, infocat, labels=LABELS, metrics=metrics)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(len(image["alt"]) > 40 for image in page.all("img"))


def test_shapes_that_do_not_fit(tmp_path, infocat):
    with pytest.raises(ShapeError, match=r"expected \(n, 1, 8, 8\)"):
        report(tmp_path / "no", infocat, torch.rand(3, 1, 9, 9))
    with pytest.raises(ShapeError, match="one label per datum"):
        report(tmp_path / "no", infocat, torch.rand(3, 1, 8, 8), labels=LABELS)
    assert not (tmp_path / "no").exists()


# --- what the panels share


def subject(vae, x, labels=None):
    with torch.no_grad():
        result = Subject(vae.eval(), x, labels, History(), {})
        result.codes, result.site_nats  # noqa: B018
    return result


@pytest.mark.parametrize("variant", [VAE, CatVAE, InfomaxVAE])
def test_nats_per_dimension_add_up_to_the_objectives_kl(variant):
    vae = variant(data_shape=(1, 8, 8)).double()
    x = torch.rand(700, 1, 8, 8, dtype=torch.float64)
    nats = subject(vae, x).site_nats
    objective = vae.objective()
    with torch.no_grad():
        objective.differentiable_loss(vae.model, vae.guide, x)
    assert {f"kl_{site}" for site in nats} <= set(objective.ledger)
    for site, values in nats.items():
        torch.testing.assert_close(values.sum(), objective.ledger[f"kl_{site}"] / 700)
    assert nats["z"].dim() == 1


def test_a_traversal_starts_at_a_code_and_moves_one_dimension():
    vae = VAE(data_shape=(1, 8, 8), latent_dim=4)
    about = subject(vae, torch.rand(50, 1, 8, 8))
    with torch.no_grad():
        pictures = about.traverse("z", [(3, 0), (3, 2)], steps=5)
    assert pictures.shape == (2, 5, 1, 8, 8)
    code = about.codes["z"][3].repeat(5, 1)
    drawn = about._drawn["z"][:, 2]
    ends = drawn.quantile(torch.tensor([0.01, 0.99])).tolist()
    code[:, 2] = torch.linspace(*ends, 5)
    torch.testing.assert_close(pictures[1], vae.decode({"z": code}, 5))


def rows_of(panel):
    return [text.get_text() for text in panel.figure.axes[0].get_yticklabels()]


def test_the_sandwich_has_a_row_per_measured_interval(infocat):
    about = subject(infocat, torch.rand(24, 1, 8, 8))
    about.metrics = {"rate": 4.0, "mi_lower": 2.0, "mi_upper": 2.5, "fitted_mi_lower": 2.2}
    about.metrics |= {"generative_mi_lower": math.nan, "mi_c_upper": 1.0, "mi_z_lower": 1.5}
    about.metrics |= {"generative_mi_z_lower": 0.5, "generative_mi_z_upper": 0.6}
    (panel,) = panels.sandwich(about)
    names = ["I(code; x)", "I(code; x), fitted", "I(c; x)", "I(z; x)", "I(z; x), model"]
    assert rows_of(panel) == names
    texts = [text.get_text() for text in panel.figure.axes[0].texts]
    assert texts[:2] == ["log 24 = 3.18", "rate 4.00"]
    assert texts[2:] == ["2.00 – 2.50", "≥ 2.20", "≤ 1.00", "≥ 1.50", "0.50 – 0.60"]
    assert "Fitted" in panel.sentence
    assert not list(panels.sandwich(subject(infocat, torch.rand(24, 1, 8, 8))))


def test_a_code_of_one_site_is_not_shown_twice():
    about = subject(VAE(data_shape=(1, 8, 8)), torch.rand(24, 1, 8, 8))
    about.metrics = {"mi_lower": 2.0, "mi_z_lower": 2.0, "mi_z_upper": 2.1, "fitted_mi_lower": 2.0}
    (panel,) = panels.sandwich(about)
    assert rows_of(panel) == ["I(z; x)", "I(z; x), fitted"]


def test_dimensions_and_categories_are_sorted_by_what_they_say(infocat):
    about = subject(infocat, torch.rand(24, 1, 8, 8))
    about.metrics = {f"mi_z[{d}]_lower": [0.1, 0.5, 0.0, 0.2, 0.3, 0.4][d] for d in range(6)}
    about.metrics |= {f"mi_z[{d}]_upper": 0.6 for d in range(6)}
    about.metrics |= {f"kl_z[{d}]": 0.7 for d in range(6)}
    about.metrics |= {f"mi_c[{k}]_{end}": k / 3 for k in range(3) for end in ("lower", "upper")}
    of_c, of_z = panels.contributions(about)
    assert (of_c.key, of_z.key) == ("information_c", "information_z")
    assert rows_of(of_z) == ["z1", "z5", "z4", "z3", "z0", "z2"]
    assert rows_of(of_c) == ["c = 2", "c = 1", "c = 0"]
    assert "stroke" in of_z.sentence
    assert "stroke" not in of_c.sentence
    (panel,) = panels.traversals(about)
    assert rows_of(panel)[:2] == ["z1  ·  0.50 nats", "z5  ·  0.40 nats"]
    assert "says of the data at least" in panel.sentence


def test_figures_of_another_code_are_left_alone(infocat):
    about = subject(infocat, torch.rand(24, 1, 8, 8))
    about.metrics = {f"mi_z[{d}]_lower": 1.0 for d in range(4)}
    assert about.indexed("z") == {}
    assert about.ranking("z")[1] == "KL"
    assert not list(panels.contributions(about))


def test_what_stands_beside_a_traversal_where_no_information_is_known():
    vae = InfomaxVAE((1, 8, 8), latent_dim=6, code_dim=2, deterministic=True)
    about = subject(vae, torch.rand(24, 1, 8, 8))
    assert about.ranking("z")[1] == "KL"
    sizes, kind = about.ranking("c")
    assert kind == "variance"
    torch.testing.assert_close(sizes, about.codes["c"].var(0, correction=0).double())


def test_centres_are_the_priors_means(infocat):
    about = subject(infocat, torch.rand(24, 1, 8, 8))
    torch.testing.assert_close(about.centres["z"], infocat.prior.means)
    for vae in (VAE((1, 8, 8)), InfoGAN((1, 8, 8), latent_dim=5, num_categories=3)):
        other = subject(vae, torch.rand(24, 1, 8, 8))
        assert other.centres == {}
        assert not [*panels.interpolations(other), *panels.radii(other)]


def test_paths_between_centres_and_away_from_the_origin(infocat):
    about = subject(infocat, torch.rand(24, 1, 8, 8))
    seen = []
    infocat.decode = lambda codes, n: seen.append(codes) or torch.zeros(n, 1, 8, 8)
    order = about.occupancy.argsort(descending=True, stable=True)
    means, eye = infocat.prior.means, torch.eye(3)
    (between,), (outwards,) = panels.interpolations(about), panels.radii(about)
    path, ray = (codes["z"].unflatten(0, (3, 9)) for codes in seen)
    kinds = seen[0]["c"].unflatten(0, (3, 9))
    for row, k in enumerate(order.tolist()):
        following = int(order[(row + 1) % 3])
        torch.testing.assert_close(path[row, 0], means[k])
        torch.testing.assert_close(path[row, 4], (means[k] + means[following]) / 2)
        torch.testing.assert_close(path[row, 8], means[following])
        assert torch.equal(kinds[row, 1], eye[k])
        assert torch.equal(kinds[row, 7], eye[following])
        torch.testing.assert_close(ray[row], torch.arange(9)[:, None] / 4 * means[k])
    assert rows_of(between) == rows_of(outwards) == [f"c = {k}" for k in order.tolist()]


def test_a_category_at_the_origin_has_no_direction():
    vae = CatVAE((1, 8, 8), num_categories=3, latent_dim=6)
    vae.prior.means[1] = 0.0
    about = subject(vae, torch.rand(24, 1, 8, 8))
    (panel,) = panels.radii(about)
    assert sorted(rows_of(panel)) == ["c = 0", "c = 2"]


def test_a_part_that_says_it_all_has_no_row_of_its_own(infocat):
    (panel,) = panels.reconstructions(subject(infocat, torch.rand(24, 1, 8, 8)))
    assert rows_of(panel) == ["original", "decoded", "c alone"]
    assert "z alone would give the same" in panel.sentence
    torch.manual_seed(0)
    gan = InfoGAN((1, 8, 8), latent_dim=5, num_categories=3)
    (panel,) = panels.reconstructions(subject(gan, torch.rand(24, 1, 8, 8)))
    assert rows_of(panel) == ["original", "decoded", "c alone", "u alone"]


def test_dimensions_stand_by_the_factor_that_they_tell(infocat):
    factors = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(1)).repeat(2, 1)
    about = subject(infocat, torch.rand(24, 1, 8, 8))
    about.factors, about.factor_names = factors, ["shape", "size", "nothing"]
    about.codes = {"c": torch.eye(3)[factors[:, 0]], "z": torch.zeros(24, 6)}
    about.codes["z"][:, 4] = factors[:, 1]
    (panel,) = panels.factor_matrix(about)
    assert rows_of(panel)[:2] == ["c", "z0"]
    assert rows_of(panel)[-1] == "z4"
    shares = torch.as_tensor(panel.figure.axes[0].images[0].get_array().filled())
    torch.testing.assert_close(shares[0], torch.tensor([1.0, 0.0], dtype=shares.dtype))
    torch.testing.assert_close(shares[-1], torch.tensor([0.0, 1.0], dtype=shares.dtype))
    assert not shares[1:-1].any()
    about.factors = torch.zeros(24, 3)
    assert not list(panels.factor_matrix(about))


def test_the_factors_are_on_the_page(tmp_path, infocat):
    factors = torch.arange(24)[:, None] % 3
    options = {"factors": factors, "panels": (panels.factor_matrix,)}
    page = report(tmp_path, infocat, factor_names=["size"], **options)
    assert page.panels == ["factors"]
    with pytest.raises(ShapeError, match="a row per datum and a name per column"):
        report(tmp_path, infocat, **options)


@pytest.mark.parametrize("labelled", [True, False])
def test_neighbours_of_enough_codes(labelled):
    vae = VAE((1, 8, 8), latent_dim=3)
    labels = torch.arange(60) % 3 if labelled else None
    (panel,) = panels.neighbouring_codes(subject(vae, torch.rand(60, 1, 8, 8), labels))
    assert panel.key == "latent_space_neighbours"
    assert len(panel.figure.axes[0].collections) == (3 if labelled else 1)
    assert "60 of them" in panel.sentence


def test_examples_show_every_label_before_any_twice(infocat):
    labels = torch.tensor([0] * 9 + [1] * 9 + [2] * 6)
    shown = subject(infocat, torch.rand(24, 1, 8, 8), labels).examples
    assert shown.tolist() == [0, 9, 18, 1, 2, 3, 4, 5, 6, 7]


def test_of_many_data_some_of_all_kinds_count(monkeypatch):
    monkeypatch.setattr("pyro_mivae.report.subject._MAX_DATA", 9)
    x, labels = torch.rand(30, 1, 8, 8), torch.arange(30) // 10
    about = Subject(VAE((1, 8, 8)), x, labels, History(), {}, None, labels[:, None], ["kind"])
    assert about.labels.tolist() == about.factors[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(about.x, x[torch.arange(9) * 30 // 9])
    assert about.num_data == 30


def test_a_category_has_the_color_of_its_label(infocat):
    about = subject(infocat, torch.rand(6, 1, 8, 8), torch.tensor([5, 5, 5, 2, 2, 2]))
    about.categories = torch.tensor([0, 0, 2, 2, 2, 2])
    assert about.category_colors == [5, 6, 2]


def test_pictures_are_small_and_look_the_same(drawn):
    figure, ax = new_figure(2.0)
    ax.imshow(torch.rand(40, 40).numpy(), cmap="Greys_r")
    picture = render_panel(Panel("a", "A", "b", "c", figure))
    for scheme, ground in (("light", "#ffffff"), ("dark", "#161b22")):
        whole = Image.open(io.BytesIO(render_png(figure, dark=scheme == "dark"))).convert("RGBA")
        laid = Image.new("RGBA", whole.size, ground)
        laid.alpha_composite(whole)
        shown = Image.open(io.BytesIO(getattr(picture, scheme)))
        assert shown.mode == "P"
        difference = ImageChops.difference(laid.convert("RGB"), shown.convert("RGB"))
        assert max(high for _, high in difference.getextrema()) < 25
        assert shown.convert("RGB").getpixel((0, 0)) == ImageColor.getrgb(ground)


def test_the_ground_of_dark_pictures_is_that_of_the_card():
    css = resources.files("pyro_mivae.report").joinpath("style.css").read_text()
    assert re.findall(r"--card: (#\w+)", css) == [render._WHITE, render._DARK_CARD]
