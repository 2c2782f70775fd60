"""State that a step changes: counters, caches, averages, normalisation, lazy parts."""

import copy
import warnings

import pyro
import torch
from torch import nn
from torch.nn.utils import parametrizations

from .harness import Case, data, decode, encode, late, program


def with_encoder(net, **options):
    """A guide that codes what a network makes of the data."""

    def guide(x):
        pyro.module("net", net)
        encode(net(x))

    return Case(decode, guide, modules=[net], **options)


@program("either")
def state_counter_not_read():
    seen = []

    def model(x):
        seen.append(1)
        decode(x)

    return Case(model, encode)


@program("either")
def state_counter_read():
    class Counts(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x / (1 + self.calls / 10)

    net = Counts()
    return with_encoder(net, state=lambda: net.calls)


@program("staged", slow=False)
def state_counter_in_a_buffer():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x / (1 + self.calls / 10)

    return with_encoder(Counts())


@program("either", slow=False)
def state_counter_in_a_rebound_buffer():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))

        def forward(self, x):
            self.calls = self.calls + 1
            return x / (1 + self.calls / 10)

    return with_encoder(Counts())


@program("staged")
def state_counter_of_whole_numbers():
    calls = torch.zeros((), dtype=torch.long)

    def model(x):
        calls.add_(1)
        decode(x, torch.where(calls % 2 == 0, 1.0, 2.0))

    return Case(model, encode, state=lambda: calls)


@program("either", slow=False)
def state_cache_none_at_first():
    class Centred(nn.Module):
        running = None

        def forward(self, x):
            mean = x.mean(0).detach()
            self.running = mean if self.running is None else 0.9 * self.running + 0.1 * mean
            return x - self.running

    net = Centred()
    return with_encoder(net, batch=lambda step: (data(seed=step % 3),), state=lambda: net.running)


@program("either")
def state_cache_by_shape():
    cache = {}

    def guide(x):
        if x.shape not in cache:
            cache[x.shape] = torch.linspace(0.5, 1.5, x.shape[-1])
        encode(x * cache[x.shape])

    return Case(decode, guide, state=lambda: list(cache.values()))


@program("staged")
def state_running_mean_in_place():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            with torch.no_grad():
                self.mean.lerp_(x.mean(0), 0.1)
            return x - self.mean

    return with_encoder(Centred(), batch=lambda step: (data(seed=step % 3),))


@program("either")
def state_running_mean_rebound():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
            return x - self.mean

    return with_encoder(Centred(), batch=lambda step: (data(seed=step % 3),))


@program("staged")
def state_running_mean_of_a_closure():
    mean = torch.zeros(3)

    def guide(x):
        mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        encode(x - mean)

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),), state=lambda: mean)


@program("staged", slow=False)
def state_batch_norm():
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3))
    return with_encoder(net, batch=lambda step: (data(seed=step % 3),))


@program("either", steps=36)
def state_batch_norm_switched_to_evaluation():
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3))
    return with_encoder(net, before=lambda step: net.train(not 11 <= step < 21))


@program("either")
def state_batch_norm_cumulative():
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, momentum=None))
    return with_encoder(net.append(nn.Linear(4, 3)), batch=lambda step: (data(seed=step % 3),))


@program("either")
def state_batch_norm_momentum_changed():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))

    def change(step):
        net[0].momentum = late(step, 11, 0.1, 0.5)

    return with_encoder(net, before=change, batch=lambda step: (data(seed=step % 3),))


@program("staged")
def state_other_norms():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Linear(4, 3))
    return with_encoder(net)


@program("either")
def state_spectral_norm():
    return with_encoder(parametrizations.spectral_norm(nn.Linear(3, 3)))


@program("either")
def state_weight_norm():
    return with_encoder(parametrizations.weight_norm(nn.Linear(3, 3)))


@program("either")
def state_orthogonal():
    return with_encoder(parametrizations.orthogonal(nn.Linear(3, 3)))


@program("either")
def state_spectral_norm_of_old():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return with_encoder(nn.utils.spectral_norm(nn.Linear(3, 3)))


@program("staged", slow=False)
def state_moving_average_of_weights_between_steps():
    net = nn.Linear(3, 3)
    average = copy.deepcopy(net)

    def follow(step):
        with torch.no_grad():
            for kept, new in zip(average.parameters(), net.parameters()):
                kept.lerp_(new, 0.1)

    return with_encoder(net, before=follow, state=lambda: average.state_dict())


@program("staged")
def state_moving_average_that_the_model_reads():
    net = nn.Linear(3, 3)
    average = copy.deepcopy(net).requires_grad_(False)

    def guide(x):
        pyro.module("net", net)
        encode(net(x) - average(x).detach() / 2)

    def follow(step):
        with torch.no_grad():
            for kept, new in zip(average.parameters(), net.parameters()):
                kept.lerp_(new, 0.1)

    return Case(decode, guide, before=follow, modules=[net, average])


@program("either")
def state_list_that_grows_and_is_read():
    history = []

    def guide(x):
        history.append(x.mean().detach())
        encode(x - torch.stack(history).mean())

    return Case(decode, guide, batch=lambda step: (data(seed=step % 3),), state=lambda: history)


@program("either")
def state_last_draw_is_kept_for_the_next_step():
    kept = {"z": torch.zeros(6, 2)}

    def guide(x):
        before = kept["z"]
        z = encode(x + before.mean() / 2)
        kept["z"] = z.detach()

    return Case(decode, guide, state=lambda: kept)


@program("either")
def state_memory_of_draws_in_place():
    bank = torch.zeros(4, 2)
    at = torch.zeros((), dtype=torch.long)

    def guide(x):
        z = encode(x + bank.mean())
        bank[at % 4] = z[0].detach()
        at.add_(1)

    return Case(decode, guide, state=lambda: (bank, at))
