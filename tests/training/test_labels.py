"""Trainings in which some data have labels."""

import functools
import math

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine.cuda_graphs import Recording
from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.training import TrainingOptions, fit, fit_many, trainer
from pyro_mivae.training.arguments import Images
from pyro_mivae.training.batches import Batches

CPU = torch.device("cpu")
HOW = {"epochs": 3, "batch_size": 16, "seed": 2}


@pytest.fixture(scope="module")
def y(x):
    """Labels of 7 of the 50 images."""
    labels = torch.full((len(x),), -1)
    labels[torch.tensor([1, 4, 8, 20, 33, 41, 49])] = torch.tensor([0, 1, 2, 0, 1, 2, 1])
    return labels


@pytest.fixture
def double(make):
    """In double precision: in single, Adam blows rounding errors of small gradients up."""
    return lambda name="infocat", **options: make(name, **options).double()


def same_history(a, b, rel=1e-6):
    assert a.columns == b.columns
    for column in set(a.columns) - {"seconds"}:
        assert a[column] == pytest.approx(b[column], rel=rel, nan_ok=True), column


def batches(x, y, size, device=CPU):
    options = TrainingOptions(1, size)
    return Batches({"x": x, "labels": y}, options, device, needs_batch=False)


@pytest.mark.parametrize("size", [3, 16, 50])
def test_an_epoch_has_all_data_once_and_every_label_equally_often(x, y, size):
    made, counts, values = batches(x, y, size), torch.zeros(len(x)), []
    scores = torch.rand(len(x))
    labelled = (y >= 0).nonzero()[:, 0]
    for seed in range(200):
        order = made.order(torch.Generator().manual_seed(seed))
        assert len(order) == sum(made.rows)
        parts = [(rows[: -made.extra], rows[-made.extra :]) for rows in order.split(made.rows)]
        assert torch.equal(
            torch.cat([plain for plain, _ in parts]).sort().values, torch.arange(50)
        )
        assert all((y[drawn] >= 0).all() and len(drawn) == made.extra for _, drawn in parts)
        drawn = torch.cat([drawn for _, drawn in parts])
        counts += drawn.bincount(minlength=len(x))
        assert drawn.bincount(minlength=len(x))[labelled].amax() <= math.ceil(len(drawn) / 7)
        values.append(scores[parts[0][1]].mean())  # of the first step
    values = torch.stack(values)
    error = max(values.std() / math.sqrt(len(values)), 1e-6)
    assert abs(values.mean() - scores[labelled].mean()) < 4 * error
    share = counts[labelled] / counts.sum()
    assert (share - 1 / 7).abs().max() < 4 * math.sqrt(1 / 7 / counts.sum())


def test_the_losses_of_an_epoch_are_unbiased_for_the_objective(x, y, double):
    """Of the classifier's term, whose value has no other noise; the network has no batch norm."""
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8))
    vae = double("cat", encoder=encoder, warm_start=0)
    x = x.double()
    objective = vae.objective(label_weight=2.0)
    made = batches(x, y, 5)
    loss = made.loss(objective, vae.model, vae.guide)
    category = vae.guide.heads[vae.guide.names.index("c")]
    logits = category.given(category(vae.guide.encoder(x))).logits
    known = y >= 0
    wanted = -logits[known].gather(1, y[known, None]).mean()
    found = []
    with torch.no_grad():
        for seed in range(8):
            for index in made.order(torch.Generator().manual_seed(seed)).split(made.rows):
                found.append(loss(*made.take(index))[1]["cross_entropy_c"] / 5)
    found = torch.stack(found)
    assert abs(found.mean() - wanted) < 4 * found.std() / math.sqrt(len(found)) + 1e-9


def test_graph_and_recording_equal_the_program(x, y, double, monkeypatch):
    how = {**HOW, "epochs": 2, "labels": y, "label_weight": 0.5, "clip_norm": 5.0}
    eager = fit(double(), x, **how, engine="eager")
    staged = fit(double(), x, **how, engine="staged")
    same_history(staged, eager)
    record = lambda optimiser, device: Recording(optimiser, device, 3)  # noqa: E731
    monkeypatch.setattr(trainer, "recorder_for", record)
    recorded = fit(double(), x, **how, engine="staged")
    assert "cross_entropy_c" in eager.columns
    same_history(recorded, eager, rel=1e-4)  # its schedules are float32


def test_an_epoch_equals_a_loop_with_the_labels_of_the_docstring(x, y, double):
    vae = double("cat", warm_start=0)
    history = fit(vae, x, epochs=1, batch_size=16, seed=2, labels=y, engine="eager")
    own, data = double("cat", warm_start=0), x.double()
    objective = own.objective(4, label_weight=1.0)
    optimiser = torch.optim.Adam(own.parameters(), 1e-3)
    total = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(2)
        own.train()
        made = batches(data, y, 16)
        for index in made.order(torch.Generator().manual_seed(2)).split(made.rows):
            rows, drawn = index[:-7], index[-7:]
            given = {"labels": y[rows], "labelled": (data[drawn], y[drawn])}
            loss = objective.differentiable_loss(own.model, own.guide, data[rows], **given)
            optimiser.zero_grad()
            (loss / len(rows)).backward()
            optimiser.step()
            objective.advance()
            total += loss.item() / len(data)
    assert history["loss"] == [pytest.approx(total)]
    for one, other in zip(vae.state_dict().values(), own.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, x, y, make, assert_same_weights):
    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    how = {**HOW, "epochs": 4, "labels": y, "validation": 0.2}
    whole, parts = make(), make()
    history = fit(whole, x, **how)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), x, **how, run=tmp_path, on_epoch=stop)
    rest = fit(parts, x, **how, run=tmp_path, resume=True)
    assert_same_weights(whole, parts)
    assert rest["cross_entropy_c"] == history["cross_entropy_c"]
    others = y.clone()
    others[0] = 1
    for labels in (others, None):
        with pytest.raises(OptionError, match="other labels given"):
            fit(make(), x, **{**how, "labels": labels}, run=tmp_path, resume=True)
    with pytest.raises(OptionError, match=r"label_weight=2\.0 given"):
        fit(make(), x, **how, label_weight=2.0, run=tmp_path, resume=True)


def test_runs_without_labels_go_on_without_knowing_of_them(tmp_path, x, y, make):
    from pyro_mivae.training import read_checkpoint
    from pyro_mivae.training.checkpoint import write_checkpoint

    fit(make(), x, **HOW, run=tmp_path)
    state = read_checkpoint(tmp_path)
    del state["identity"]["data"]["labels"], state["identity"]["options"]["label_weight"]
    write_checkpoint(tmp_path, {k: v for k, v in state.items() if k != "file"})
    fit(make(), x, **HOW | {"epochs": 3}, run=tmp_path, resume=True)
    with pytest.raises(OptionError, match="other labels given"):
        fit(make(), x, **HOW, labels=y, run=tmp_path, resume=True)


def test_each_of_many_has_its_own_labels(x, y, make, assert_same_weights):
    others, make = y.roll(1), functools.partial(make, "cat", warm_start=0)
    alone = [make(), make()]
    for seed, (vae, labels) in enumerate(zip(alone, (y, others), strict=True)):
        fit(vae, x, **{**HOW, "seed": seed}, labels=labels)
    together, shared = [make(), make()], [make()]
    how = {k: v for k, v in HOW.items() if k != "seed"}
    fit_many(together, x, **how, labels=[y, others])
    for one, other in zip(alone, together, strict=True):
        assert_same_weights(one, other)
    fit_many(shared, x, **how, labels=y)
    assert_same_weights(alone[0], shared[0])
    with pytest.raises(OptionError, match="labels holds 1 for 2 models"):
        fit_many([make(), make()], x, **how, labels=[y])


def test_images_without_a_label_are_held_out_first(x, y, make):
    for share, left in ((0.5, 7), (0.9, 5)):
        images = Images.checked(make(), x, share, TrainingOptions(1), y)
        data, (held_out,) = images.place(CPU)
        assert len(data["x"]) + len(held_out) == len(x)
        assert int((data["labels"] >= 0).sum()) == left
        for image, label in zip(data["x"], data["labels"], strict=True):
            (row,) = (x == image).flatten(1).all(1).nonzero()[:, 0]
            assert y[row] == label
    history = fit(make(), x, **HOW, labels=y, validation=0.3)
    assert "cross_entropy_c" in history.columns
    assert "val_cross_entropy_c" not in history.columns


def test_labels_number_the_categories(make):
    """Bright rows: two labels of each of three kinds tell which category is which."""
    torch.manual_seed(0)
    kinds = torch.arange(240) % 3
    x = 0.1 * torch.rand(240, 1, 4, 4)
    x[range(240), 0, kinds] += 0.8
    y = torch.full((240,), -1)
    y[:6] = kinds[:6]
    vae = make("cat", warm_start=60)
    fit(vae, x, epochs=3, batch_size=40, labels=y)
    found = vae.encode(x)["c"].argmax(1)
    assert (found == kinds).float().mean() > 0.95


def test_any_pair_with_a_category_takes_labels(x, y):
    torch.manual_seed(0)
    parts = {"prior": mi.MixturePrior(3, 6), "guide": mi.MixtureGuide((1, 4, 4), 3, 6)}
    history = fit(mi.VAE((1, 4, 4), **parts), x, **HOW, labels=y.numpy())
    assert history["cross_entropy_c"][-1] < history["cross_entropy_c"][0]


@pytest.mark.parametrize("protocol", ["dynamic", "fixed"])
def test_binary_pixels_beside_labels(x, y, make, protocol):
    seen = []
    vae = make("cat", warm_start=0)
    vae.guide.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    fit(vae, x, **HOW, labels=y, binarize=protocol, engine="eager")
    assert {len(batch) for batch in seen} >= {16, 2, 7}
    assert all(((batch == 0) | (batch == 1)).all() for batch in seen)


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        (torch.full((50,), -1), DataError, "labels hold none"),
        (torch.zeros(49).long(), ShapeError, r"labels of shape \(49,\) given for 50 data"),
        (torch.zeros(50), DataError, "allowed are integers"),
        (torch.arange(50), DataError, "range over 0 to 49; allowed are 0 to 2"),
        (torch.arange(50) - 2, DataError, "range over -2 to 47"),
        ("labels", DataError, "labels"),
    ],
)
def test_wrong_labels_are_refused(x, make, labels, error, match):
    with pytest.raises(error, match=match):
        fit(make(), x, **HOW, labels=labels)
    if error is not DataError or match != "allowed are integers":
        with pytest.raises(error, match=match):
            make().initialize(x, labels)


def test_a_target_of_the_cross_entropy(tmp_path, x, y, make):
    how = {**HOW, "labels": y, "run": tmp_path}
    history = fit(make(), x, **how, label_weight=mi.Target(0.1))
    assert history["weight_cross_entropy_c"][-1] > 1
    vae = make()
    more = fit(vae, x, **{**how, "epochs": 4}, label_weight="target:0.1", resume=True)
    assert more["weight_cross_entropy_c"][-1] > history["weight_cross_entropy_c"][-1]
    with pytest.raises(OptionError, match="label_weight='target:0.2' given, .* 'target:0.1'"):
        fit(make(), x, **how, label_weight=mi.Target(0.2), resume=True)
    for wrong in (mi.Target(0.1, speed=0.1), mi.Target(-1.0), "0.1", -1.0):
        with pytest.raises(OptionError, match="label_weight=.*; allowed are"):
            fit(make(), x, **how, label_weight=wrong)
    assert "(held at 0.1 nats, from 1)" in mi.explain(vae.objective(label_weight=mi.Target(0.1)))


def test_variants_without_a_category_or_an_elbo_refuse_labels(x, y, make):
    for name, lacks in (("vae", "VAE has no category"), ("infogan", "InfoGAN has no ELBO")):
        with pytest.raises(OptionError, match=lacks):
            fit(make(name), x, **HOW, labels=y)
    with pytest.raises(OptionError, match=r"label_weight=1\.0 is given without labels"):
        fit(make(), x, **HOW, label_weight=1.0)


def test_an_objective_of_ones_own_keeps_its_term(x, y, make):
    how = {**HOW, "labels": y}
    own = mi.MutualInformationELBO([mi.LabelledCategory("c", weight=0.5)])
    plain = mi.MutualInformationELBO()
    found = fit(make(), x, **how, objective=own)
    wanted = fit(make(), x, **how, objective=plain, label_weight=0.5)
    assert found["loss"] == wanted["loss"]
    with pytest.raises(OptionError, match="give each term once"):
        fit(make(), x, **how, objective=own, label_weight=0.5)
