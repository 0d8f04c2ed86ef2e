"""What a policy class must look like, and how its options are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Optional

import pytest

from policies.base import Choice, Policy
from policies.contract import PolicyError, check_class, describe, make


class Plain:
    """Picks the first."""

    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "first")


class Tuned(Plain):
    """Picks as it is told.

    Args:
        weight: How much
            it weighs.

            In two paragraphs.
        mode: Whichever: slow or fast.
        undescribed_elsewhere: Not an option.

    Returns:
        names: Nothing of interest.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        mode: Literal["fast", "slow"] = "fast",
        names: list[str] | None = None,
        limit: Optional[int] = None,  # noqa: UP045 - plugins write it either way
    ) -> None:
        self.given = (weight, mode, names, limit)


@dataclass(kw_only=True)
class Data(Plain):
    """Options as fields."""

    weight: float = 2.0
    names: list[str] = field(default_factory=list)


class Inherits(Policy):
    """Subclasses the interface itself."""

    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "first")


def refusal(call, *args):
    with pytest.raises(PolicyError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("target", [Plain, Inherits])
def test_a_class_without_init_has_no_options(target):
    assert check_class(target) == ()
    assert isinstance(make(target, {}), target)
    assert refusal(make, target, {"weight": 1}) == "has no option 'weight'; allowed: none"


def test_options_are_read_from_the_signature_and_the_docstring():
    options = {option.name: option for option in check_class(Tuned)}
    assert list(options) == ["weight", "mode", "names", "limit"]
    assert options["weight"].doc == "How much it weighs. In two paragraphs."
    assert options["mode"].doc == "Whichever: slow or fast."
    assert options["names"].doc == ""
    assert [option.type for option in options.values()] == [
        "float",
        "'fast' or 'slow'",
        "list[str] | None",
        "Optional[int]",
    ]
    assert options["weight"].default == 1.0


def test_options_left_out_keep_their_defaults():
    assert make(Tuned, {}).given == (1.0, "fast", None, None)
    given = {"weight": 3, "names": ["a"], "limit": 4, "mode": "slow"}
    assert make(Tuned, given).given == (3.0, "slow", ["a"], 4)


def test_fields_of_a_dataclass_are_options():
    assert [option.name for option in check_class(Data)] == ["weight", "names"]
    assert make(Data, {}).names == []
    assert make(Data, {"names": ["x"]}).names == ["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wieght": 1}, "has no option 'wieght' (did you mean 'weight'?); allowed: weight, mode, "),
        ({"weight": "2"}, "option 'weight' is '2'; allowed: float (Expected `float`, got `str`)"),
        ({"weight": None}, "option 'weight' is None; allowed: float (Expected `float`, got `null`"),
        ({"weight": True}, "option 'weight' is True; allowed: float (Expected `float`, got `bool`"),
        ({"mode": "quick"}, "option 'mode' is 'quick'; allowed: 'fast' or 'slow' ("),
        ({"limit": 2.5}, "option 'limit' is 2.5; allowed: Optional[int] ("),
        ({"names": ["a", 1]}, "option 'names' is ['a', 1]; allowed: list[str] | None ("),
        ({"mode": "a\nb"}, "option 'mode' is 'a\\nb'; allowed: "),
    ],
)
def test_wrong_options_are_refused_by_name_value_and_what_is_allowed(options, message):
    assert refusal(make, Tuned, options).startswith(message)


def test_a_long_value_is_cut():
    message = refusal(make, Tuned, {"weight": "x" * 5000})
    assert len(message) < 200
    assert "x…; allowed: float" in message


def test_the_place_of_a_wrong_element_is_told():
    assert "`$[1]`" in refusal(make, Tuned, {"names": ["a", 1]})


def test_what_init_refuses_is_told_in_its_own_words():
    class Picky(Plain):
        def __init__(self, *, weight: int = 1) -> None:
            if weight < 1:
                msg = f"weight is {weight};\nallowed: 1 or more"
                raise ValueError(msg)
            if weight > 9:
                raise KeyError

    assert refusal(make, Picky, {"weight": 0}) == (
        "refuses its options: weight is 0; allowed: 1 or more"
    )
    assert refusal(make, Picky, {"weight": 10}) == "refuses its options: KeyError"


def test_describe_names_errors_that_do_not_speak_for_themselves():
    assert describe(ValueError("too\n much")) == "too much"
    assert describe(ValueError()) == "ValueError"
    assert describe(KeyError("k")) == "KeyError: 'k'"


class NoChoose:
    pass


class ChooseIsNoMethod:
    choose = 3


class TooFew:
    def choose(self, request, replicas):
        return Choice(replicas[0], "first")


class TooMany:
    def choose(self, request, replicas, rng, clock):
        return Choice(replicas[0], "first")


class Async:
    async def choose(self, request, replicas, rng):
        return Choice(replicas[0], "first")


class Generator:
    def choose(self, request, replicas, rng):
        yield Choice(replicas[0], "first")


class Positional(Plain):
    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight


class Untyped(Plain):
    def __init__(self, *, weight=1.0) -> None:
        self.weight = weight


class NoDefault(Plain):
    def __init__(self, *, weight: float) -> None:
        self.weight = weight


class Unreadable(Plain):
    def __init__(self, *, weight: NoSuchType = 1.0) -> None:  # noqa: F821
        self.weight = weight


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Plain(), "is not a class"),
        (len, "<built-in function len> is not a class"),
        (NoChoose, "class NoChoose has no method `choose`"),
        (ChooseIsNoMethod, "class ChooseIsNoMethod has no method `choose`"),
        (TooFew, "TooFew.choose(self, request, replicas) must take (self, request, replicas, rng)"),
        (TooMany, "rng, clock) must take (self, request, replicas, rng)"),
        (Async, "Async.choose must be a plain method, neither async nor a generator"),
        (Generator, "Generator.choose must be a plain method, neither async nor a generator"),
        (Positional, "parameter 'weight' of Positional.__init__ must be keyword-only"),
        (Untyped, "parameter 'weight' of Untyped.__init__ must have an annotated type and a def"),
        (NoDefault, "parameter 'weight' of NoDefault.__init__ must have an annotated type and a d"),
        (
            Unreadable,
            "the signature of Unreadable.__init__ cannot be read: NameError: name 'NoSuch",
        ),
    ],
)
def test_what_breaks_the_contract_is_refused(target, message):
    assert message in refusal(check_class, target)


def test_static_and_class_methods_may_choose():
    class Static:
        @staticmethod
        def choose(request, replicas, rng):
            return Choice(replicas[0], "first")

    class OfClass:
        @classmethod
        def choose(cls, request, replicas, rng):
            return Choice(replicas[0], "first")

    class StaticTooMany:
        @staticmethod
        def choose(self, request, replicas, rng):  # noqa: PLW0211 - the mistake under test
            return Choice(replicas[0], "first")

    assert check_class(Static) == check_class(OfClass) == ()
    assert "must take" in refusal(check_class, StaticTooMany)


def test_an_option_of_a_type_that_cannot_be_checked_is_refused():
    class Odd(Plain):
        def __init__(self, *, weight: list[int] | set[int] = ()) -> None:
            self.weight = weight

    assert "option 'weight' has a type that cannot be checked: " in refusal(
        make, Odd, {"weight": [1]}
    )


def test_an_abstract_class_is_refused():
    assert "refuses its options: TypeError: Protocols cannot be instantiated" in refusal(
        make, Policy, {}
    )
