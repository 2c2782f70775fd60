"""Networks of many kinds, gradients of a user's own, hooks, and precisions."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .harness import Case, data, decode, encode, program
from .state import with_encoder


class Recurrent(nn.Module):
    """Reads the columns as a series."""

    def __init__(self, kind):
        super().__init__()
        self.net = kind(1, 4, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.net(x[..., None])[0][:, -1])


@program("either", slow=False)
def structure_lstm():
    return with_encoder(Recurrent(nn.LSTM))


@program("either")
def structure_gru():
    return with_encoder(Recurrent(nn.GRU))


@program("either")
def structure_packed_sequence():
    net = nn.GRU(1, 3, batch_first=True)

    def guide(x):
        pyro.module("net", net)
        lengths = torch.tensor([3, 3, 2, 2, 1, 1])
        packed = nn.utils.rnn.pack_padded_sequence(x[..., None], lengths, batch_first=True)
        encode(net(packed)[1][0])

    return Case(decode, guide)


@program("staged")
def structure_attention():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.MultiheadAttention(4, 2, batch_first=True, dropout=0.1)
            self.into, self.out = nn.Linear(1, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.into(x[..., None])
            return self.out(self.net(h, h, h, need_weights=False)[0])[..., 0]

    return with_encoder(Attends())


@program("either")
def structure_transformer_layer():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.TransformerEncoderLayer(3, 1, 4, batch_first=True)

        def forward(self, x):
            return self.net(x[:, None])[:, 0]

    return with_encoder(Layer())


@program("staged")
def structure_convolution():
    net = nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)
    )
    return with_encoder(net)


@program("staged")
def structure_embedding():
    table = nn.Embedding(4, 3)

    def guide(x, labels):
        pyro.module("table", table)
        encode(x + table(labels))

    def batch(step):
        return data(), (torch.arange(6) + step) % 4

    return Case(lambda x, labels: decode(x), guide, batch=batch, modules=[table])


class Doubled(torch.autograd.Function):
    """Has a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad / 3


@program("either")
def structure_custom_gradient():
    def model(x):
        decode(x, factor=Doubled.apply(pyro.param("gain", torch.ones(()))))

    return Case(model, encode)


@program("either")
def structure_custom_gradient_that_saves():
    class Clipped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(-0.5, 0.5)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (x.abs() < 1)

    net = nn.Linear(3, 3)

    def guide(x):
        pyro.module("net", net)
        encode(Clipped.apply(net(x)))

    return Case(decode, guide, modules=[net])


@program("either")
def structure_hook_on_a_parameter():
    net = nn.Linear(3, 3)
    net.weight.register_hook(lambda grad: grad * 0.1)
    return with_encoder(net)


@program("either")
def structure_hook_on_a_parameter_that_counts():
    net, seen = nn.Linear(3, 3), []
    net.weight.register_hook(lambda grad: seen.append(1) or grad / len(seen))
    return with_encoder(net, state=lambda: len(seen))


@program("either")
def structure_hook_added_later():
    net = nn.Linear(3, 3)

    def change(step):
        if step == 11:
            net.weight.register_hook(lambda grad: grad * 0)

    return with_encoder(net, before=change)


@program("either")
def structure_hooks_on_a_module():
    net = nn.Linear(3, 3)

    def change(step):
        if step == 11:
            net.register_forward_hook(lambda module, args, out: out * 2)

    return with_encoder(net, before=change)


@program("either")
def structure_hook_on_a_value():
    """A gradient is scaled where it flows back from the code."""

    def guide(x):
        slope = pyro.param("slope", lambda: torch.full((3, 2), 0.1))
        loc = x @ slope
        loc.register_hook(lambda grad: grad * 0.3)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return Case(decode, guide)


@program("staged")
def structure_straight_through():
    def guide(x):
        slope = pyro.param("mixing", lambda: torch.eye(3))
        soft = torch.sigmoid(x @ slope)
        encode(soft + ((soft > 0.5).to(soft) - soft).detach())

    return Case(decode, guide)


@program("either")
def structure_gradient_in_the_model():
    """The loss holds a gradient itself: a penalty on the encoder's slope."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def guide(x):
        pyro.module("net", net)
        x = x.clone().requires_grad_()
        out = net(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        encode(out + slope)

    return Case(decode, guide, modules=[net])


@program("staged", dtype=torch.float32)
def structure_single_precision():
    return with_encoder(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)))


@program("either", dtype=torch.float32, rtol=2e-2)
def structure_half_and_brain_floats():
    net = nn.Linear(3, 3).bfloat16()

    def guide(x):
        pyro.module("net", net)
        encode(net(x.bfloat16()).half().float())

    return Case(decode, guide, modules=[net])


@program("either", dtype=torch.float32)
def structure_autocast():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

    def guide(x):
        pyro.module("net", net)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = net(x)
        encode(x.float())

    return Case(decode, guide, modules=[net])


@program("either", dtype=torch.float32)
def structure_autocast_about_the_step():
    def step_of(svi, step):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step >= 11):
            return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either")
def structure_steps_without_gradient_mode():
    """Inference mode about a step: Pyro's enables gradients by itself."""

    def step_of(svi, step):
        with torch.set_grad_enabled(step < 11):
            return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either")
def structure_traced_encoder():
    net = torch.jit.trace(nn.Linear(3, 3), torch.zeros(6, 3))
    return with_encoder(net)


@program("either", slow=False)
def structure_mapped_function():
    weight = torch.linspace(-1, 1, 3)

    def guide(x):
        gain = pyro.param("gain", torch.ones(3))
        encode(torch.func.vmap(lambda row: row * gain + (row @ weight))(x))

    return Case(decode, guide)


@program("either")
def structure_derivative_of_a_function():
    def guide(x):
        gain = pyro.param("gain", torch.ones(3))
        _, slope = torch.func.jvp(lambda x: (x * gain).tanh(), (x,), (torch.ones_like(x),))
        encode(slope)

    return Case(decode, guide)


@program("either")
def structure_functional_call():
    net = nn.Linear(3, 3)

    def guide(x):
        pyro.module("net", net)
        noisy = {name: p + 0.1 * torch.randn_like(p) for name, p in net.named_parameters()}
        encode(torch.func.functional_call(net, noisy, (x,)))

    return Case(decode, guide, modules=[net])


@program("either")
def structure_spectrum():
    def guide(x):
        gain = pyro.param("gain", torch.ones(2))
        encode(torch.fft.irfft(torch.fft.rfft(x) * gain, n=3))

    return Case(decode, guide)


@program("either")
def structure_sparse_matrix():
    links = torch.eye(6).roll(1, 0).to_sparse()
    return Case(decode, lambda x: encode(x + torch.sparse.mm(links, x)))


@program("staged")
def structure_linear_algebra():
    def guide(x):
        gain = pyro.param("gain", lambda: torch.eye(3))
        whole = gain @ gain.T + torch.eye(3)
        encode(torch.linalg.solve(whole, x.T).T + torch.logdet(whole))

    return Case(decode, guide)
