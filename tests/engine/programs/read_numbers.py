"""Ways of reading a number that changes: variables, attributes and containers."""

import dataclasses
import functools
import types
from collections import ChainMap, namedtuple

import torch

from .harness import Case, decode, encode, late, program, rising

NUMBER = 1.0
RISING = 1.0
TABLE = {"scale": 1.0}
HELD = torch.ones(())
settings_module = types.ModuleType("settings_module")


@program("staged", slow=False)
def number_global_once():
    def model(x):
        decode(x, NUMBER)

    return Case(model, encode, before=lambda step: globals().update(NUMBER=late(step)))


@program("either")
def number_global_each_step():
    def model(x):
        decode(x, RISING)

    return Case(model, encode, before=lambda step: globals().update(RISING=rising(step)))


def read_far():
    return read_further()


def read_further():
    return NUMBER


@program("either")
def number_global_two_calls_away():
    def model(x):
        decode(x, read_far())

    return Case(model, encode, before=lambda step: globals().update(NUMBER=late(step)))


@program("staged", slow=False)
def number_closure_once():
    number = 1.0

    def change(step):
        nonlocal number
        number = late(step)

    def model(x):
        decode(x, number)

    return Case(model, encode, before=change)


@program("either")
def number_closure_in_the_guide_each_third_step():
    number = 1.0

    def change(step):
        nonlocal number
        number = 1.0 + step // 3

    def guide(x):
        encode(x * number)

    return Case(decode, guide, before=change)


@program("either")
def number_nested_closure():
    number = 1.0

    def outer():
        def inner():
            return number

        return inner

    read = outer()

    def change(step):
        nonlocal number
        number = late(step, at=7)

    return Case(lambda x: decode(x, read()), encode, before=change)


@program("either")
def number_default_argument():
    def model(x, scale=1.0):
        decode(x, scale)

    def change(step):
        model.__defaults__ = (late(step),)

    return Case(model, encode, before=change)


@program("either")
def number_keyword_default():
    def model(x, *, scale=1.0):
        decode(x, scale)

    def change(step):
        model.__kwdefaults__["scale"] = late(step)

    return Case(model, encode, before=change)


@program("either")
def number_function_attribute():
    def model(x):
        decode(x, model.scale)

    def change(step):
        model.scale = late(step)

    return Case(model, encode, before=change)


@program("either")
def number_partial_of_a_list():
    held = [1.0]

    def change(step):
        held[0] = late(step)

    model = functools.partial(lambda scales, x: decode(x, scales[0]), held)
    return Case(model, encode, before=change)


@program("either")
def number_partial_keywords_changed():
    model = functools.partial(decode, scale=1.0)
    return Case(model, encode, before=lambda step: model.keywords.update(scale=late(step)))


class Plain:
    """A pair as methods of an object that is no module."""

    shared = 1.0

    def __init__(self):
        self.scale = 1.0
        self._hidden = 1.0
        self.nested = types.SimpleNamespace(options=types.SimpleNamespace(scale=1.0))

    def own(self, x):
        decode(x, self.scale)

    def of_class(self, x):
        decode(x, self.shared)

    @property
    def doubled(self):
        return 2 * self._hidden

    def by_property(self, x):
        decode(x, self.doubled)

    def deep(self, x):
        decode(x, self.nested.options.scale)

    def __call__(self, x):
        decode(x, self.scale)


@program("either", slow=False)
def number_instance_attribute_of_a_method():
    pair = Plain()
    return Case(pair.own, encode, before=lambda step: setattr(pair, "scale", late(step)))


@program("either")
def number_instance_attribute_of_a_callable():
    pair = Plain()
    return Case(pair, encode, before=lambda step: setattr(pair, "scale", rising(step)))


@program("either")
def number_class_attribute():
    Plain.shared = 1.0
    pair = Plain()
    return Case(pair.of_class, encode, before=lambda step: setattr(Plain, "shared", late(step)))


@program("either")
def number_property():
    pair = Plain()
    return Case(pair.by_property, encode, before=lambda step: setattr(pair, "_hidden", late(step)))


@program("either", slow=False, steps=36)
def number_nested_objects():
    pair = Plain()

    def change(step):
        pair.nested.options.scale = late(step, at=21)

    return Case(pair.deep, encode, before=change)


@program("either")
def number_slots():
    class Slotted:
        __slots__ = ("scale",)

    options = Slotted()
    options.scale = 1.0

    def change(step):
        options.scale = late(step)

    return Case(lambda x: decode(x, options.scale), encode, before=change)


@program("either", slow=False)
def number_dict():
    return Case(
        lambda x: decode(x, TABLE["scale"]),
        encode,
        before=lambda step: TABLE.update(scale=late(step)),
    )


@program("either")
def number_local_dict_each_step():
    options = {}
    return Case(
        lambda x: decode(x, options.get("scale", 1.0)),
        encode,
        before=lambda step: options.update(scale=rising(step)),
    )


@program("either")
def number_chain_of_maps():
    given = {}
    options = ChainMap(given, {"scale": 1.0})

    def change(step):
        if step == 11:
            given["scale"] = 2.0

    return Case(lambda x: decode(x, options["scale"]), encode, before=change)


@program("either")
def number_list():
    scales = [1.0]

    def change(step):
        if step == 7:
            scales.append(3.0)

    return Case(lambda x: decode(x, scales[-1]), encode, before=change)


@program("either")
def number_length_of_a_list():
    seen = []
    return Case(
        lambda x: decode(x, 1.0 + len(seen)),
        encode,
        before=lambda step: seen.append(step) if step % 11 == 0 else None,
    )


@program("either")
def number_dataclass():
    @dataclasses.dataclass
    class Options:
        scale: float = 1.0

    options = Options()
    return Case(
        lambda x: decode(x, options.scale),
        encode,
        before=lambda step: setattr(options, "scale", late(step)),
    )


@program("either")
def number_frozen_dataclass_replaced():
    @dataclasses.dataclass(frozen=True)
    class Options:
        scale: float = 1.0

    options = Options()

    def change(step):
        nonlocal options
        options = dataclasses.replace(options, scale=late(step))

    return Case(lambda x: decode(x, options.scale), encode, before=change)


@program("either")
def number_namedtuple_replaced():
    options = namedtuple("Options", "scale")(1.0)

    def change(step):
        nonlocal options
        options = options._replace(scale=late(step))

    return Case(lambda x: decode(x, options.scale), encode, before=change)


@program("either")
def number_attribute_of_an_imported_module():
    return Case(
        lambda x: decode(x, settings_module.scale),
        encode,
        before=lambda step: setattr(settings_module, "scale", late(step)),
    )
