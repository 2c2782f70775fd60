"""Panels show what they say of a model and its data."""

import math

import pytest
import torch

from pyro_mivae import VAE, CatVAE, InfoGAN, InfomaxVAE
from pyro_mivae.report import information, latent_space, samples
from pyro_mivae.report.latent_space import factor_matrix, table_columns
from pyro_mivae.tables import letter

from .pages import LABELS, data_of, rows_of

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def test_what_a_code_changes_is_drawn_from_the_prior():
    """Rows of one code differ in noise; along a row nothing but the code moves."""
    gan = InfoGAN((1, 8, 8), latent_dim=4, code_dim=2, num_categories=3)
    seen = []
    gan.decode = lambda codes, n, given: seen.append(codes) or torch.zeros(n, 1, 8, 8)
    (panel,) = samples.traversals(data_of(gan, None, LABELS))
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
def test_a_continuous_c_has_traversals_of_its_own(deterministic, code_dim):
    size = {"latent_dim": 6, "code_dim": code_dim}
    vae = InfomaxVAE((1, 8, 8), deterministic=deterministic, **size)
    data = data_of(vae, None, LABELS, {"kl_z": 2.0, "kl_c": math.nan if deterministic else 1.0})
    keys = [panel.key for panel in samples.traversals(data)]
    assert set(keys) == {"traversals_c", "traversals_z"}
    (by_label,) = latent_space.latent_space(data)
    assert by_label.key == "latent_space_by_label"
    (bar,) = information.information_bar(data)
    assert ("c is deterministic" in bar.sentence) == deterministic


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("code_dim", "names"), [(1, ["c moves"] * 4), (3, 3), (7, 4)])
def test_what_each_part_of_the_code_draws(deterministic, code_dim, names):
    vae = InfomaxVAE((1, 8, 8), latent_dim=9, code_dim=code_dim, deterministic=deterministic)
    metrics = {"reconstruction_r2": 0.5, "reconstruction_r2_z": -0.001}
    nats = torch.rand(code_dim).double()
    if not deterministic:
        metrics |= {f"kl_c[{d}]": float(v) for d, v in enumerate(nats)}
    data = data_of(vae, None, LABELS, metrics)
    (panel,) = samples.reconstructions(data)
    rows = rows_of(panel)
    assert rows[:4] == ["original", "c and z  R² 0.50", "c alone", "z alone  R² 0.00"]
    if isinstance(names, int):
        sizes = data.codes["c"].var(0) if deterministic else nats
        names = [f"c{dim} moves" for dim in sizes.argsort(descending=True)[:names].tolist()]
    assert rows[4:] == names
    assert "share of the variance" in panel.sentence


def test_a_part_that_says_it_all_has_no_row_of_its_own(infocat):
    (panel,) = samples.reconstructions(data_of(infocat))
    assert rows_of(panel) == ["original", "c and z", "c alone"]
    assert "z alone gives the same" in panel.sentence
    torch.manual_seed(0)
    gan = InfoGAN((1, 8, 8), latent_dim=5, num_categories=3)
    (panel,) = samples.reconstructions(data_of(gan))
    assert rows_of(panel) == ["original", "c and u", "c alone", "u alone"]


def test_a_traversal_starts_at_a_code_and_moves_one_dimension():
    vae = VAE(data_shape=(1, 8, 8), latent_dim=4)
    data = data_of(vae, torch.rand(50, 1, 8, 8))
    pictures, values, own = data.traverse("z", [(3, 0), (3, 2)], steps=5)
    assert pictures.shape == (2, 5, 1, 8, 8)
    code = data.codes["z"][3].repeat(5, 1)
    drawn = data._drawn["z"][:, 2]
    ends = drawn.quantile(torch.tensor([0.01, 0.99])).tolist()
    code[:, 2] = torch.linspace(*ends, 5)
    torch.testing.assert_close(pictures[1], vae.decode({"z": code}, 5))
    torch.testing.assert_close(values[1], code[:, 2])
    torch.testing.assert_close(own, data.codes["z"][3, [0, 2]])


def test_the_sandwich_has_a_row_per_measured_interval(infocat):
    metrics = {"rate": 4.0, "mi_lower": 2.0, "mi_upper": 2.5, "fitted_mi_lower": 2.2}
    metrics |= {"generative_mi_lower": math.nan, "mi_c_upper": 1.0, "mi_z_lower": 1.5}
    metrics |= {"generative_mi_z_lower": 0.5, "generative_mi_z_upper": 0.6}
    (panel,) = information.sandwich(data_of(infocat, metrics=metrics))
    names = ["I(x; code)", "I(x; code), fitted", "I(x; c)", "I(x; z)", "I(x; z), model"]
    assert rows_of(panel) == names
    texts = [text.get_text() for text in panel.figure.axes[0].texts]
    assert texts[:2] == ["log 24 = 3.18", "rate 4.00"]
    assert texts[2:] == ["2.00 – 2.50", "≥ 2.20", "≤ 1.00", "≥ 1.50", "0.50 – 0.60"]
    assert "Fitted" in panel.sentence
    assert not list(information.sandwich(data_of(infocat)))


def test_a_code_of_one_site_is_not_shown_twice(vae):
    metrics = {"mi_lower": 2.0, "mi_z_lower": 2.0, "mi_z_upper": 2.1, "fitted_mi_lower": 2.0}
    (panel,) = information.sandwich(data_of(vae, metrics=metrics))
    assert rows_of(panel) == ["I(x; z)", "I(x; z), fitted"]


def test_dimensions_and_categories_are_sorted_by_what_they_say(infocat):
    metrics = {f"mi_z[{d}]_lower": [0.1, 0.5, 0.0, 0.2, 0.3, 0.4][d] for d in range(6)}
    metrics |= {f"mi_z[{d}]_upper": 0.6 for d in range(6)}
    metrics |= {f"kl_z[{d}]": 0.7 for d in range(6)}
    metrics |= {f"mi_c[{k}]_{end}": k / 3 for k in range(3) for end in ("lower", "upper")}
    data = data_of(infocat, metrics=metrics)
    of_c, of_z = information.contributions(data)
    assert (of_c.key, of_z.key) == ("information_c", "information_z")
    assert rows_of(of_z) == ["z1", "z5", "z4", "z3", "z0", "z2"]
    assert rows_of(of_c) == ["c = C", "c = B", "c = A"]
    assert "stroke" in of_z.sentence
    assert "stroke" not in of_c.sentence
    (panel,) = samples.traversals(data)
    assert rows_of(panel)[:2] == ["z1  ·  0.50 nats", "z5  ·  0.40 nats"]
    assert "is a lower bound on the dimension's information" in panel.sentence


def test_the_bar_of_the_rate_has_a_piece_per_measured_dimension(infocat):
    metrics = {"kl_c": 1.0, "kl_z": 2.1} | {f"kl_z[{d}]": d / 10 for d in range(6)}
    (panel,) = information.information_bar(data_of(infocat, metrics=metrics))
    widths = [piece.get_width() for piece in panel.figure.axes[0].patches]
    assert widths == pytest.approx([1.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_figures_of_another_code_are_left_alone(infocat):
    data = data_of(infocat, metrics={f"mi_z[{d}]_lower": 1.0 for d in range(4)})
    assert data.indexed("z") == {}
    assert not list(information.contributions(data))


def test_what_stands_beside_a_traversal_where_no_information_is_known():
    vae = InfomaxVAE((1, 8, 8), latent_dim=6, code_dim=2, deterministic=True)
    metrics = {f"kl_z[{d}]": d / 10 for d in range(4)} | {"kl_c[0]": math.nan, "kl_c[1]": math.nan}
    data = data_of(vae, metrics=metrics)
    assert data.ranking("z")[1] == "KL"
    sizes, kind = data.ranking("c")
    assert kind == "variance"
    torch.testing.assert_close(sizes, data.codes["c"].var(0, correction=0).double())


def test_centres_are_the_priors_means(infocat):
    torch.testing.assert_close(data_of(infocat).centres["z"], infocat.prior.means)
    for vae in (VAE((1, 8, 8)), InfoGAN((1, 8, 8), latent_dim=5, num_categories=3)):
        other = data_of(vae)
        assert other.centres == {}
        assert not [*samples.interpolations(other), *samples.radii(other)]


def test_paths_between_centres_and_away_from_the_origin(infocat):
    data = data_of(infocat)
    seen = []
    infocat.decode = lambda codes, n, given: seen.append(codes) or torch.zeros(n, 1, 8, 8)
    order = data.occupancy.argsort(descending=True, stable=True)
    means, eye = infocat.prior.means, torch.eye(3)
    (between,), (outwards,) = samples.interpolations(data), samples.radii(data)
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
    above = [text.get_text() for text in outwards.figure.axes[0].get_xticklabels()]
    assert above == [f"{step / 4:g}" for step in range(9)]  # 1 at the centre
    assert rows_of(between) == rows_of(outwards) == [f"c = {letter(k)}" for k in order.tolist()]


def test_a_category_at_the_origin_has_no_direction():
    vae = CatVAE((1, 8, 8), num_categories=3, latent_dim=6)
    vae.prior.means[1] = 0.0
    (panel,) = samples.radii(data_of(vae))
    assert sorted(rows_of(panel)) == ["c = A", "c = C"]


def test_dimensions_stand_by_the_factor_that_they_tell(infocat):
    factors = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(1)).repeat(2, 1)
    names = ["shape", "size", "nothing"]
    data = data_of(infocat, factors=factors, factor_names=names)
    data.codes = {"c": torch.eye(3)[factors[:, 0]], "z": torch.zeros(24, 6)}
    data.codes["z"][:, 4] = factors[:, 1]
    data.codes["z"][:, 2] = factors[:, 1] // 2  # half of what there is to know
    (panel,) = factor_matrix(data)
    assert panel.key == "factors"
    assert rows_of(panel)[:2] == ["c", "z0"]
    assert rows_of(panel)[-2:] == ["z4", "z2"]
    shares = torch.as_tensor(panel.figure.axes[0].images[0].get_array().filled())
    torch.testing.assert_close(shares[0], torch.tensor([1.0, 0.0], dtype=shares.dtype))
    told = torch.tensor([[0.0, 1.0], [0.0, 0.5]], dtype=shares.dtype)
    torch.testing.assert_close(shares[-2:], told)
    assert not shares[1:-2].any()
    data.factors = torch.zeros(24, 3)
    assert not list(factor_matrix(data))


@pytest.mark.parametrize("labelled", [True, False])
def test_neighbours_of_enough_codes(vae, labelled):
    labels = torch.arange(60) % 3 if labelled else None
    data = data_of(vae, torch.rand(60, 1, 8, 8), labels)
    (panel,) = latent_space.neighbouring_codes(data)
    assert panel.key == "latent_space_neighbours"
    assert len(panel.figure.axes[0].collections) == (3 if labelled else 1)
    assert "60 of them" in panel.sentence


def test_examples_show_every_label_before_any_twice(infocat):
    labels = torch.tensor([0] * 9 + [1] * 9 + [2] * 6)
    assert data_of(infocat, None, labels).examples.tolist() == [0, 9, 18, 1, 2, 3, 4, 5, 6, 7]


def test_of_many_data_some_of_all_kinds_count(vae, monkeypatch):
    monkeypatch.setattr("pyro_mivae.report.data._MAX_DATA", 9)
    x, labels = torch.rand(30, 1, 8, 8), torch.arange(30) // 10
    data = data_of(vae, x, labels, factors=labels[:, None], factor_names=["kind"])
    assert data.labels.tolist() == data.factors[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(data.x, x[torch.arange(9) * 30 // 9])
    assert data.num_data == 30


def test_a_category_has_the_color_of_its_label(infocat):
    data = data_of(infocat, torch.rand(6, 1, 8, 8), torch.tensor([5, 5, 5, 2, 2, 2]))
    data.categories = torch.tensor([0, 1, 2, 2, 2, 2])
    assert data.category_colors == [5, 5, 2]


def test_a_dimension_is_beside_the_column_that_it_holds():
    vae = CatVAE((3,), num_categories=2, latent_dim=2, likelihood="gaussian")
    z, kind = torch.randn(40, 2), torch.arange(40) % 2
    x = torch.stack([2 * z[:, 1], kind.float(), torch.randn(40)], 1)
    data = data_of(vae, x, column_names=["length", "kind", "a name that is much too long"])
    data.codes = {"c": torch.eye(2)[kind], "z": z}
    vae.reconstruct = lambda x, given: x * torch.tensor([1.0, 0.5, 0.0])
    (panel,) = table_columns(data)
    (ax,) = panel.figure.axes
    assert rows_of(panel) == ["length", "kind", "a name that is much too…"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["decoded", "c", "z0", "z1"]
    shares = torch.as_tensor(ax.images[0].get_array())
    assert shares[0, [0, 3]].tolist() == pytest.approx([1, 1])
    assert shares[1, [0, 1]].tolist() == pytest.approx([0.5, 1])  # 1 - 0.5^2 E[x^2] / var(x)
    assert float(shares[2, 0]) == pytest.approx(0, abs=0.05)
    assert float(shares[1, 2:].max()) < 0.5
    assert not list(table_columns(data_of(vae, x)))
