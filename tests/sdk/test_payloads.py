"""User values to JSON and back, by type hints."""

import dataclasses
import datetime as dt
import doctest
import enum
import functools
import json
import math
import subprocess
import sys
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from perdure.sdk.payloads import values as values_module
from perdure.sdk.payloads.errors import DETAIL_BYTES_MAX, ErrorRecord, error_from_json, error_to_json
from perdure.sdk.payloads.fingerprints import fingerprint
from perdure.sdk.payloads.hints import Hints, Unannotated, read_hints
from perdure.sdk.payloads.tracebacks import FRAMES_MAX, are_kept
from perdure.sdk.payloads.values import decode, encode
from perdure.wire.base.codec import check_json
from perdure.wire.base.errors import BadRequest, BadValue, PerdureError

if TYPE_CHECKING:
    from elsewhere import Context  # type: ignore[import-not-found]

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    S = 1
    L = 3


class Place(enum.StrEnum):
    HOME = "home"


class Corner(enum.Enum):
    TOP = (0, 1)
    LEFT = (1, 0)


class Mixed(enum.Enum):
    WORD = "x"
    NUMBER = 1
    NOTHING = None


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Item:
    name: str
    price: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Counted:
    given: int
    late: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    label: str | None = None


@dataclasses.dataclass
class Node:
    name: str
    children: list["Node"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Reading:
    at: str
    value: float | None = dataclasses.field(default=None, compare=False)


class Order(msgspec.Struct):
    id: int
    items: list[Item]
    note: str | msgspec.UnsetType = msgspec.UNSET


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    good: bool


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Customer(BaseModel):
    name: str
    born: date | None = None
    limit: Decimal = Decimal("0")
    scores: dict[int, float] = {}


class Address(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: name.title())
    street: str
    city: str = Field(validation_alias="town", serialization_alias="place", default="")


class Page(BaseModel, Generic[T]):
    items: list[T]


class Numbers(pydantic.RootModel[list[int]]):
    pass


@dataclasses.dataclass
class Sale:
    item: Item
    customer: Customer
    when: datetime
    by_size: dict[Size, Customer] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Either:
    """msgspec declines the hints of this class."""

    what: Item | Point | Customer
    more: dict[str, Box[int] | Item] = dataclasses.field(default_factory=dict)
    pair: tuple[Item | Point, ...] = ()
    late: int = dataclasses.field(init=False, default=0)


class EitherStruct(msgspec.Struct, rename="camel"):
    the_thing: Item | Point
    the_corner: Corner = Corner.TOP


class EitherDict(TypedDict):
    thing: Item | Point
    more: NotRequired[Corner]


class EitherTuple(NamedTuple):
    first: Item | Point
    second: Box[Corner]


@dataclasses.dataclass
class Initialised:
    a: int
    b: dataclasses.InitVar[int]


class Shout(str):
    def __str__(self) -> str:
        return self.upper()


class Plain:
    pass


UserId = NewType("UserId", int)
CornerId = NewType("CornerId", Corner)
ITEM = Item("saw", 9.5, ["new"])
CUSTOMER = Customer(name="Ada", born=date(1815, 12, 10), limit=Decimal("1.50"), scores={1: 0.5})
NOON = datetime(2026, 11, 25, 12, 0, 0, 1, tzinfo=dt.UTC)

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, None),
    (True, bool),
    (0, int),
    (-(2**63) - 1, int),
    (2**53 + 1, int),
    (2**63, int),
    (10**4_000 - 1, int),
    (-(10**4_000) + 1, int),
    (-0.0, float),
    (1, float),
    (5e-324, float),
    ("", str),
    ("a\0\u2028é😀", str),
    (b"\xff\0", bytes),
    (bytearray(b"x"), bytearray),
    ([1, 2], list[int]),
    ([1, "a", None, [2.5]], list),
    ((1, "a"), tuple[int, str]),
    ((1, 2, 3), tuple[int, ...]),
    ((), tuple[()]),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ([1], Sequence[int]),
    ({"a": 1}, Mapping[str, int]),
    ({"a": {"b": [None]}}, dict[str, Any]),
    ({1: 2, -(2**70): 3}, dict[int, int]),
    ({1.5: "a"}, dict[float, str]),
    ({Colour.RED: 1}, dict[Colour, int]),
    ({Size.L: 1}, dict[Size, int]),
    ({UUID(int=1): 1}, dict[UUID, int]),
    ({date(2026, 1, 2): [{3: 4}]}, dict[date, list[dict[int, int]]]),
    ({NOON: 1}, dict[datetime, int]),
    ({Decimal("1.50"): 1}, dict[Decimal, int]),
    ({b"a": 1}, dict[bytes, int]),
    ({"a": 1}, dict[Literal["a", "b"], int]),
    (OrderedDict(b=1, a=2), OrderedDict),
    (ITEM, Item),
    (Point(x=1), Point),
    (Node("a", [Node("b"), Node("c", [Node("d")])]), Node),
    (Box(1), Box[int]),
    (Box([ITEM], "b"), Box[list[Item]]),
    (Box(CUSTOMER), Box[Customer]),
    (Reading("now", 1.5), Reading),
    (Order(1, [ITEM]), Order),
    (Order(2, [], "n"), Order),
    (Renamed("Ada"), Renamed),
    ([Cat(9), Dog(True)], list[Cat | Dog]),
    (Pair(1), Pair),
    ({"title": "Heat"}, Movie),
    (Colour.RED, Colour),
    (Size.L, Size),
    (Place.HOME, Place),
    (Rights.READ | Rights.WRITE, Rights),
    (NOON, datetime),
    (datetime(1, 1, 1), datetime),  # noqa: DTZ001 - naive ones round-trip too
    (datetime(2026, 1, 1, tzinfo=dt.timezone(timedelta(hours=-5, minutes=-30))), datetime),
    (date.max, date),
    (time(1, 2, 3, 4), time),
    (time(1, tzinfo=dt.UTC), time),
    (timedelta(days=-1, microseconds=3), timedelta),
    (timedelta.max, timedelta),
    (UUID(int=2**128 - 1), UUID),
    (Decimal("1.50"), Decimal),
    (Decimal("1E+1000"), Decimal),
    (None, Optional[Item]),  # noqa: UP045 - another type at run time than X | None
    (ITEM, Item | None),
    (1, Union[int, str, list[int]]),  # noqa: UP007
    ("a", Union[int, str, list[int]]),  # noqa: UP007
    ("b", Literal["a", "b", 1, None]),
    (1, Literal["a", "b", 1, None]),
    (UserId(7), UserId),
    (5, Annotated[int, msgspec.Meta(ge=1)]),
    (5, Annotated[int, ["not hashable"]]),
    (Counted(1), Counted),
    # pydantic
    (CUSTOMER, Customer),
    (Address.model_validate({"Street": "Rue", "town": "Paris"}), Address),
    ([CUSTOMER], list[Customer]),
    ({"a": CUSTOMER}, dict[str, Customer]),
    ((CUSTOMER, 1), tuple[Customer, int]),
    (None, Customer | None),
    (CUSTOMER, Customer | None),
    (Page[int](items=[1]), Page[int]),
    (Page[Customer](items=[CUSTOMER]), Page[Customer]),
    (Numbers([1, 2]), Numbers),
    (Sale(ITEM, CUSTOMER, datetime(2026, 1, 1), {Size.S: CUSTOMER}), Sale),  # noqa: DTZ001
    # hints that msgspec declines
    (ITEM, Item | Point),
    (Point(x=2, y=3), Item | Point),
    (CUSTOMER, Item | Point | Customer),
    (CUSTOMER, Customer | int),
    (5, Customer | int),
    (CUSTOMER, Customer | str | None),
    ("word", Customer | str | None),
    (None, Customer | str | None),
    ("not a date", datetime | str),
    (NOON, datetime | str),
    (date(2026, 1, 1), datetime | date | str),
    ([ITEM, Point(x=1)], list[Item | Point]),
    ((Point(x=1), ITEM), tuple[Point | Item, ...]),
    ((Point(x=1), 2), tuple[Point | Item, int]),
    ({Point(x=1)}, set[Point | UUID | str]),
    (frozenset({Point(x=1)}), frozenset[Point | UUID | str]),
    ({1: ITEM}, dict[int, Item | Point]),
    ({"a": {Size.S: Corner.TOP}}, dict[str, dict[Size, Corner]]),
    ({UUID(int=1): Corner.TOP, 7: Corner.LEFT}, dict[UUID | int, Corner]),
    (Corner.LEFT, Corner),
    (CornerId(Corner.LEFT), CornerId),
    ([Mixed.WORD, Mixed.NUMBER, Mixed.NOTHING], list[Mixed]),
    (Colour.RED, Literal[Colour.RED, "blue"]),
    ("blue", Literal[Colour.RED, "blue"]),
    (Either(ITEM, {"a": Box(1), "b": ITEM}, (Point(x=1), ITEM)), Either),
    (Either(CUSTOMER), Either),
    (EitherStruct(Point(x=1), Corner.LEFT), EitherStruct),
    ({"thing": ITEM, "more": Corner.LEFT}, EitherDict),
    (EitherTuple(ITEM, Box(Corner.TOP)), EitherTuple),
    (Box(Point(x=1)), Box[Item | Point]),
    (Box(Box(Corner.TOP)), Box[Box[Corner]]),
    (Counted(1), Annotated[Counted | Item, "a note"]),
]


def name_of(part: object) -> str:
    try:
        words = str(part)
    except (RuntimeError, TypeError):  # Some of ours refuse to say.
        return type(part).__name__
    return type(part).__name__ if " at 0x" in words else words[:40]  # two runs must name the tests alike


@pytest.mark.parametrize(("value", "hint"), ROUND_TRIPS, ids=name_of)
def test_a_value_comes_back_as_its_hint_says(value: Any, hint: Any) -> None:
    data = encode(value, hint, where="input")
    check_json(data, where="input")
    back = decode(data, hint, where="input")
    assert back == value
    assert repr(back) == repr(value) or hint is float  # -0.0, 1.50 and the types of dict keys survive; 1 becomes 1.0
    if not isinstance(value, float):
        assert type(back) is type(value) or hint is float


def test_minus_zero_survives() -> None:
    assert math.copysign(1, decode(encode(-0.0, float), float)) == -1
    assert math.copysign(1, decode(encode([-0.0]))[0]) == -1


def test_a_late_field_of_a_dataclass_survives() -> None:
    for hint in (Counted, Counted | Item):
        value = Counted(1)
        value.late = 7
        assert decode(encode(value, hint), hint) == value
    either = Either(ITEM)
    either.late = 7
    assert decode(encode(either, Either), Either).late == 7


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (ITEM, {"name": "saw", "price": 9.5, "tags": ["new"]}),
        ({"a": [CUSTOMER]}, {"a": [json.loads(CUSTOMER.model_dump_json())]}),
        (Order(1, []), {"id": 1, "items": []}),
        (Pair(1), [1, "r"]),
        (Colour.RED, "red"),
        (Corner.TOP, [0, 1]),
        (date(2026, 1, 2), "2026-01-02"),
        (UUID(int=1), str(UUID(int=1))),
        (timedelta(seconds=1), "PT1S"),
        (Decimal("1.50"), "1.50"),
        (b"a", "YQ=="),
        (Shout("a"), "a"),
        ({Shout("k"): Shout("a")}, {"k": "a"}),
        (msgspec.Raw(b'{"a": 1.0}'), {"a": 1.0}),
        ([None, ITEM, (None,)], [None, {"name": "saw", "price": 9.5, "tags": ["new"]}, [None]]),
    ],
    ids=name_of,
)
def test_without_a_hint_a_value_comes_back_as_plain_json(value: Any, plain: Any) -> None:
    data = encode(value, where="input")
    assert decode(data) == plain
    assert encode(value, object) == data


def total(order):  # type: ignore[no-untyped-def]
    raise NotImplementedError


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        2**70,
        1.0,
        -0.0,
        "a",
        [],
        {},
        [1, "a", None, [2.5, {"b": [True]}]],
        {"a": 1, "b": {"c": [None, {}]}},
    ],
    ids=repr,
)
def test_without_an_annotation_plain_json_comes_back_as_it_was(value: Any) -> None:
    hint = Unannotated(total)
    back = decode(encode(value, hint), hint)
    assert repr(back) == repr(value), "equality would take 1 for True and 0.0 for -0.0"


@pytest.mark.parametrize(
    ("value", "path", "was", "becomes"),
    [
        (ITEM, "", "Item", "dict"),
        (Order(1, [ITEM]), "", "Order", "dict"),
        (CUSTOMER, "", "Customer", "dict"),
        ((1, 2), "", "tuple", "list"),
        (Pair(1), "", "Pair", "list"),
        ({1}, "", "set", "list"),
        (frozenset("a"), "", "frozenset", "list"),
        (NOON, "", "datetime", "str"),
        (date(2026, 1, 2), "", "date", "str"),
        (time(1), "", "time", "str"),
        (timedelta(1), "", "timedelta", "str"),
        (UUID(int=1), "", "UUID", "str"),
        (Decimal("1.50"), "", "Decimal", "str"),
        (b"a", "", "bytes", "str"),
        (bytearray(b"a"), "", "bytearray", "str"),
        (Colour.RED, "", "Colour", "str"),
        (Corner.TOP, "", "Corner", "list"),
        (Mixed.NOTHING, "", "Mixed", "NoneType"),
        (Rights.READ, "", "Rights", "int"),
        (msgspec.Raw(b"[1]"), "", "Raw", "list"),
        # These are equal to what they would come back as.
        (Place.HOME, "", "Place", "str"),
        (Size.L, "", "Size", "int"),
        (Shout("a"), "", "Shout", "str"),
        (OrderedDict(a=1), "", "OrderedDict", "dict"),
        (defaultdict(int, a=1), "", "defaultdict", "dict"),
        (Counter(a=1), "", "Counter", "dict"),
        ({Place.HOME: 1}, "", "Place", "str"),
        # Deeper
        ({"order": {"id": 7, "total": Decimal("1.50")}}, ".order.total", "Decimal", "str"),
        ([1, [2, {"at of it": [NOON]}]], "[1][1]['at of it'][0]", "datetime", "str"),
        ([{"a": 1}, {"a": 1, "b": (1,)}], "[1].b", "tuple", "list"),
    ],
    ids=name_of,
)
def test_without_an_annotation_what_would_come_back_as_another_type_is_refused(
    value: Any, path: str, was: str, becomes: str
) -> None:
    hint = Unannotated(total)
    with pytest.raises(BadValue) as refusal:
        encode(value, hint, where="result")
    assert refusal.value.message == (
        f"result{path}: a `{was}` would come back as a `{becomes}`; annotate the return type of total(), "
        "or use plain JSON values"
    )
    assert encode(value, Any), "who says Any takes plain JSON"


def test_what_json_cannot_hold_is_named_before_what_would_change() -> None:
    with pytest.raises(BadValue, match=r"^result\[1\]: nan is not JSON"):
        encode((1, math.nan), Unannotated(total), where="result")
    with pytest.raises(BadValue, match=r"^result\.a: the key 1 is `int`"):
        encode({"a": {1: 2}}, Unannotated(total), where="result")


@pytest.mark.parametrize(
    ("hint", "advice"),
    [
        (Unannotated(total), "annotate the return type of total()"),
        (Unannotated(total, "order"), "annotate parameter 'order' of total()"),
        (Unannotated(functools.partial(total, 1)), "annotate the return type of total()"),
        (
            Unannotated(lambda: ITEM),
            "call <lambda>() in a function of your own and annotate the return type of that",
        ),
        (
            Unannotated(datetime.now),
            "call datetime.now() in a function of your own and annotate the return type of that",
        ),
    ],
    ids=["function", "parameter", "partial", "lambda", "builtin"],
)
def test_an_unannotated_place_says_what_to_annotate(hint: Unannotated, advice: str) -> None:
    assert hint.advice() == advice


def test_subclasses_of_plain_types_are_written_bare_and_read_by_their_hint() -> None:
    class Count(int):
        pass

    class Ratio(float):
        pass

    values: list[tuple[Any, bytes]] = [(Shout("a"), b'"a"'), (Count(3), b"3"), (Ratio(0.5), b"0.5")]
    for value, data in values:
        assert encode(value, type(value)) == data
        back = decode(data, type(value))
        assert back == value
        assert type(back) is type(value)


CYCLE: list[Any] = [1]
CYCLE.append({"again": CYCLE})
RING = Node("a")
RING.children.append(RING)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


class Level(BaseModel):
    inner: Any = None


class Key(BaseModel):
    secret: SecretStr


class Login(BaseModel):
    user: str
    keys: list[Key]


REFUSED: dict[str, tuple[Any, Any, str, str]] = {
    "NaN": (math.nan, Any, "input", "nan is not JSON"),
    "Infinity": ([1.0, math.inf], Any, "input[1]", "inf is not JSON"),
    "-Infinity, with a hint": ({"items": [{}, {"price": -math.inf}]}, dict[str, Any], "input.items[1].price", "-inf"),
    "NaN in a dataclass": ([Item("a", math.nan)], list[Item], "input[0].price", "nan"),
    "NaN in a dataclass without a hint": ([Item("a", math.nan)], Any, "input[0].price", "nan"),
    "NaN where None may be": ({"a": math.nan}, dict[str, float | None], "input.a", "nan"),
    "NaN in a field left out of comparisons": (Reading("now", math.nan), Reading, "input.value", "nan"),
    "NaN beside a tuple": ((None, math.nan), Any, "input[1]", "nan"),
    "NaN in a set": ({math.nan}, set[float], "input[0]", "nan"),
    "NaN in a Struct": (Order(1, [Item("a", math.inf)]), Order, "input.items[0].price", "inf"),
    "NaN in a NamedTuple": (Pair(math.nan), Any, "input[0]", "nan"),  # type: ignore[arg-type]
    "NaN in a model": (Customer(name="a", scores={1: math.nan}), Customer, "input.scores['1']", "nan"),
    "NaN in a model in a dataclass": (
        Sale(ITEM, Customer(name="a", scores={1: math.inf}), datetime(2026, 1, 1)),  # noqa: DTZ001
        Sale,
        "input.customer.scores['1']",
        "inf",
    ),
    "NaN as a key": ({math.nan: 1}, dict[float, int], "input", "the key nan"),
    "Infinity as a key": ({"a": {math.inf: 1}}, Any, "input.a", "the key inf"),
    "Decimal NaN": ([Decimal("NaN")], list[Decimal], "input[0]", "Decimal NaN"),
    "Decimal sNaN": ([Decimal("sNaN")], list[Decimal], "input[0]", "Decimal sNaN"),
    "Decimal Infinity": ({"a": Decimal("-Infinity")}, dict[str, Decimal], "input.a", "Decimal -Infinity"),
    "Decimal Infinity in a dataclass": (Box(Decimal("Infinity")), Box[Decimal], "input.content", "Decimal Infinity"),
    "a lone surrogate": (
        {"items": ["a", "b\ud800"]},
        Any,
        "input.items[1]",
        r"lone surrogate '\ud800' (at position 1)",
    ),
    "a lone surrogate in a dataclass": (Item("\udc80"), Item, "input.name", "lone surrogate"),
    "a lone surrogate in a key": ({"a": {"\ud800": 1}}, Any, "input.a", "lone surrogate"),
    "a lone surrogate in a model": (Level.model_construct(inner=["\ud800"]), Level, "input.inner[0]", "lone surrogate"),
    "an object": ({"a": [object()]}, Any, "input.a[0]", "`object` is not JSON"),
    "an object of a class": (Plain(), Any, "input", "`Plain` is not JSON"),
    "an object in a model": (Level(inner=Plain()), Level, "input.inner", "Plain"),
    "a class": ([int], Any, "input[0]", "`type` is not JSON"),
    "a dataclass, not an instance": ([Item], Any, "input[0]", "`type` is not JSON"),
    "a function": (print, Any, "input", "is not JSON"),
    "a path": ({"file name": Path("x")}, Any, "input['file name']", "Path` is not JSON"),
    "a complex": ([1j], Any, "input[0]", "`complex` is not JSON"),
    "a deque": (deque([1]), Any, "input", "`deque` is not JSON"),
    "a generator": ((x for x in "ab"), Any, "input", "`generator` is not JSON"),
    "an exception": ({"error": ValueError("x")}, Any, "input.error", "`ValueError` is not JSON"),
    "a range": ({"a": range(3)}, Any, "input.a", "`range` is not JSON"),
    "an int key": ({"a": {1: 2}}, Any, "input.a", "the key 1 is `int`"),
    "an int key where the hint says str": ({"a": {1: 2}}, dict[str, dict[str, int]], "input.a", "the key 1 is `int`"),
    "an int key in a dataclass field": (Box({1: 2}), Box[dict[str, int]], "input.content", "the key 1 is `int`"),
    "a UUID key": ([{UUID(int=1): 2}], Any, "input[0]", "is `UUID`"),
    "an enum key": ({Colour.RED: 2}, dict[str, int], "input", "is `Colour`"),
    "a None key": ({None: 2}, Any, "input", "the key None is `NoneType`"),
    "a bool key": ({True: 2}, dict[str, int], "input", "the key True is `bool`"),
    "a tuple key": ({(1, 2): 2}, dict[tuple[int, int], int], "input", "the key (1, 2) is `tuple`"),
    "a cycle": (CYCLE, Any, "input[1].again", "`list` contains itself"),
    "a cycle of dataclasses": (RING, Node, "input.children[0]", "`Node` contains itself"),
    "depth 65": ({"a": nested(64)}, Any, "input.a" + "[0]" * 63, "deeper than 64"),
    "depth 5,000": (nested(5_000), Any, "input" + "[0]" * 64, "deeper than 64"),
    "depth 65 with a hint": ([nested(64)], list[Any], "input" + "[0]" * 64, "deeper than 64"),
    "depth 65 through a model": (Level(inner=nested(64)), Level, "input.inner" + "[0]" * 63, "deeper than 64"),
    "8 MiB": ({"a": "x" * (8 << 20)}, Any, "input", "the limit is 8,388,608"),
    "4,001 digits": ({"n": [10**4_000]}, Any, "input.n[0]", "more than 4,000 digits"),
    "5,000 digits": ({"n": -(10**5_000)}, dict[str, int], "input.n", "more than 4,000 digits"),
    "an offset of seconds": (
        [datetime(2026, 1, 1, tzinfo=dt.timezone(timedelta(seconds=61)))],
        list[datetime],
        "input[0]",
        "0:01:01 is not in whole minutes",
    ),
    "raw bytes that are not JSON": ({"a": msgspec.Raw(b"[NaN]")}, Any, "input.a", "NaN"),
    "raw bytes that overflow": ({"a": msgspec.Raw(b"1e999")}, dict[str, msgspec.Raw], "input[...]", "overflows"),
    "raw bytes that are not UTF-8": ({"a": msgspec.Raw(b'"\xff"')}, dict[str, msgspec.Raw], "input", "not UTF-8"),
    "a secret": (Login(user="a", keys=[Key(secret=SecretStr("s"))]), Login, "input.keys[0].secret", "asterisks"),
    "a secret in a dict": (Level(inner={"a": SecretStr("s")}), Level, "input.inner.a", "asterisks"),
    "a secret alone": ({"a": SecretStr("s")}, Any, "input.a", "`SecretStr` is not JSON"),
    "bytes in a model that are not UTF-8": (Level(inner={"b": b"\xff"}), Level, "input.inner", "utf-8"),
    "another type than the hint": ({"a": ["1"]}, dict[str, list[int]], "input[...][0]", "Expected `int`, got `str`"),
    "another type in a dataclass": ([Item(name=1)], list[Item], "input[0].name", "Expected `str`, got `int`"),  # type: ignore[arg-type]
    "a result where none is announced": (5, None, "input", "Expected `null`, got `int`"),
    "None where something is announced": (None, int, "input", "Expected `int`, got `null`"),
    "another model": (Point(x=1), Customer, "input.name", "required"),
    "a model's rule": ({"a": 5}, dict[str, Annotated[int, msgspec.Meta(le=3)]], "input[...]", "<= 3"),
    "no member of a union": (Plain(), Item | Point, "input", "`Plain` is not JSON"),
    "no member of a union, deep": ([Box(ITEM)], list[Item | Point], "input[0]", "fits no member"),
    "a union that JSON cannot tell apart": ("YWJj", bytes | str, "input", "JSON cannot tell apart"),
    "a date-like text in a union": (["2026-01-01T00:00:00"], list[datetime | str], "input", "cannot tell apart"),
    "a hint that is no data": ([Plain()], list[Plain], "input[0]", "`Plain` is not JSON"),
}


@pytest.mark.parametrize(("value", "hint", "path", "words"), REFUSED.values(), ids=REFUSED)
def test_what_would_not_come_back_is_refused_with_its_path(value: Any, hint: Any, path: str, words: str) -> None:
    with pytest.raises(BadValue) as refusal:
        encode(value, hint, where="input")
    place, _, complaint = refusal.value.message.partition(": ")
    assert place == path
    assert words in complaint
    refusal.value.message.encode()


def test_depth_64_is_allowed() -> None:
    for value, hint in ((nested(64), Any), ([nested(63)], list[Any]), (Level(inner=nested(63)), Level)):
        assert decode(encode(value, hint), hint) == value


def test_the_same_object_twice_is_not_a_cycle() -> None:
    shared = (1, 2)
    assert decode(encode({"a": shared, "b": [shared, shared]})) == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


UNREADABLE: dict[str, tuple[bytes, Any, str, str]] = {
    "another type": (b'{"items":[{"name":"a"},{"name":1}]}', dict[str, list[Item]], "result[...][1].name", "`str`"),
    "a missing field": (b'{"price":1}', Item, "result", "missing required field `name`"),
    "a number with a point": (b"1.0", int, "result", "Expected `int`, got `float`"),
    "a key": (b'{"x":1}', dict[int, int], "result", "(in a key)"),
    "a model": (b'[{"name":"a"},{"name":"a","scores":{"1":"x"}}]', list[Customer], "result[1].scores['1']", "number"),
    "a model alone": (b'{"name":1}', Customer, "result.name", "valid string"),
    "a model in a dataclass": (b'{"content":{"name":[]}}', Box[Customer], "result.content.name", "valid string"),
    "no member of a union": (b'[{"z":1}]', list[Item | Point], "result[0]", "fits no member of"),
    "a member of a union, almost": (b'{"what":{"name":1}}', Either, "result.what.name", "fits no member of"),
    "an enum": (b'"green"', Colour, "result", "Invalid enum value"),
    "an enum of tuples": (b"[1,1]", Corner, "result", "Invalid value [1, 1] for `Corner`"),
    "not an object": (b'{"what":{"name":"a"},"more":[]}', Either, "result.more", "Expected `object`, got `array`"),
    "not an array": (b'{"what":{"name":"a"},"pair":{}}', Either, "result.pair", "Expected `array`, got `object`"),
    "too short": (b"[[]]", list[tuple[Item | Point, int]], "result[0]", "length 2, got 0"),
    "an untyped dict's field": (b'{"more":[0,1]}', EitherDict, "result", "missing required field `thing`"),
    "a key among several": (b'{"x":[0,1]}', dict[UUID | int, Corner], "result.x", "the key is not"),
    "not JSON": (b"{", Any, "result", "truncated"),
    "not UTF-8": (b'"\xff"', Any, "result", "utf-8"),
    "too deep": (b"[" * 100_000, Any, "result", "deeper than 64"),
    "a class that is no data": (b"[1]", list[Plain], "result[0]", "JSON cannot be read into the type hint `Plain`"),
    "a protocol": (b"1", Callable[[], int], "result", "JSON cannot be read into the type hint"),
    "Never": (b"null", typing.Never, "result", "JSON cannot be read into the type hint"),
    "a dataclass with an InitVar": (b'{"a":1,"b":2}', Initialised, "result", "missing 1 required positional argument"),
}


@pytest.mark.parametrize(("data", "hint", "path", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_does_not_fit_the_hint_is_refused_with_its_path(data: bytes, hint: Any, path: str, words: str) -> None:
    with pytest.raises(BadValue) as refusal:
        decode(data, hint, where="result")
    place, _, complaint = refusal.value.message.partition(": ")
    assert place == path
    assert words.casefold() in complaint.casefold()  # the decoder's words differ between its releases


def test_other_clients_may_send_a_model_by_its_aliases() -> None:
    assert decode(b'{"Street":"Rue","town":"Paris"}', Address) == decode(b'{"street":"Rue","city":"Paris"}', Address)


def test_other_clients_may_send_what_only_some_member_of_a_union_can_take() -> None:
    assert decode(b'{"x":1}', Item | Point) == Point(x=1)
    assert decode(b'{"name":"a","unknown":1}', Point | Item) == Item("a")


def test_what_a_users_type_raises_is_a_refusal_too() -> None:
    with pytest.raises(BadValue, match=r"^result: LookupError: 'no such thing'"):
        decode(b'{"id":1}', Picky, where="result")
    with pytest.raises(BadValue, match=r"^result\[0\]: fits no member .*\(not even\)"):
        decode(b'[{"id":2}]', list[Picky | Item], where="result")


@dataclasses.dataclass
class Picky:
    id: int

    def __post_init__(self) -> None:
        if self.id == 1:
            raise LookupError("'no such thing'")
        raise ValueError("not even")


def test_a_type_that_cannot_be_compared_is_written_all_the_same() -> None:
    class Silent(msgspec.Struct, eq=False):
        a: int

    class Loud(msgspec.Struct):
        a: int

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

    for cls in (Silent, Loud):
        assert encode(cls(1), cls) == b'{"a":1}'


def test_an_unresolved_name_in_a_class_is_named() -> None:
    @dataclasses.dataclass
    class Lost:
        a: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(BadValue, match=r"Lost.*'Nowhere' is not defined"):
        decode(b"{}", Lost)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = …` is newer")
def test_type_aliases_are_followed() -> None:
    space: dict[str, Any] = {"Item": Item, "Point": Point}
    exec("type Ids = list[int]\ntype Things = list[Item | Point]", space)
    assert decode(encode([1], space["Ids"]), space["Ids"]) == [1]
    assert decode(encode([ITEM], space["Things"]), space["Things"]) == [ITEM]


# --- pydantic's dataclasses -------------------------------------------------------------------------------------------


@pydantic.dataclasses.dataclass
class Stock:
    pieces: int = Field(ge=0)
    shelf: Annotated[str, Field(pattern="^[A-Z]")] = "A"
    notes: list[str] = Field(default_factory=list)
    label: str = Field(default="none", alias="Label")
    photo: bytes = b""
    untested: int = Field(default=None)  # type: ignore[assignment]  # a default that its own type refuses, as people write
    counted: int = dataclasses.field(init=False, default=0)

    @pydantic.field_validator("shelf")
    @classmethod
    def _short(cls, shelf: str) -> str:
        if len(shelf) > 3:
            raise ValueError("too long")
        return shelf


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid"))
class Rack:
    stocks: list[Stock]
    seen: datetime


@dataclasses.dataclass
class Hall:
    racks: dict[str, Rack]
    best: Stock | None = None


class Houses(msgspec.Struct):
    halls: tuple[Hall, ...]


class Shelved(NamedTuple):
    left: Stock
    right: Stock | str


class Slot(msgspec.Struct):
    stock: Stock
    next: "Slot | None" = None


@pytest.mark.parametrize(
    ("data", "type_", "complaint"),
    [
        (b'{"pieces":-1}', Stock, r"value\.pieces: .* greater than or equal to 0"),
        (b'{"pieces":1,"shelf":"Long"}', Stock, r"value\.shelf: Value error, too long"),
        (b"{}", Stock, r"value\.pieces: Field required"),
        (b'[{"pieces":-1}]', list[Stock], r"value\[0\]\.pieces: .* greater than"),
        (b'{"a":{"pieces":-1}}', dict[str, Stock], r"value\.a\.pieces: .* greater than"),
        (b'{"pieces":-1}', Stock | None, r"value\.pieces: .* greater than"),
        (b'{"pieces":-1}', Annotated[Stock, "wrapped"], r"value\.pieces: .* greater than"),
        (b'[{"pieces":1},{"pieces":-1}]', Shelved, r"value\[1\]\.pieces: .* greater than"),
        (
            b'{"halls":[{"racks":{"r":{"seen":"2026-11-25T10:00:00Z","stocks":[{"pieces":1},{"pieces":-1}]}}}]}',
            Houses,
            r"value\.halls\[0\]\.racks\.r\.stocks\[1\]\.pieces: .* greater than",
        ),
        (
            b'{"stock":{"pieces":1},"next":{"stock":{"pieces":-1}}}',
            Slot,
            r"value\.next\.stock\.pieces: .* greater than",
        ),
        (b'{"stocks":[{"pieces":-1}],"seen":"2026-11-25T10:00:00Z"}', Rack | Hall, r"pieces: .* greater than"),
    ],
)
def test_a_dataclass_of_pydantic_is_validated(data: bytes, type_: Any, complaint: str) -> None:
    with pytest.raises(BadValue, match=complaint):
        decode(data, type_)


def test_a_dataclass_of_pydantic_comes_back_as_it_was() -> None:
    stock = Stock(pieces=3, shelf="B", notes=["n"], Label="mine", photo=b"\xff", untested=1)
    stock.counted = 7
    rack = Rack([stock, Stock(pieces=1, untested=2)], datetime(2026, 11, 25, tzinfo=dt.UTC))
    for value, type_ in [
        (stock, Stock),
        (rack, Rack),
        ([rack], list[Rack]),
        (Houses((Hall({"r": rack}, stock),)), Houses),
        (Shelved(stock, "none"), Shelved),
        (rack, Rack | Hall),
    ]:
        assert decode(encode(value, type_), type_) == value
    given = decode(b'{"pieces":1,"unknown":2}', Stock)
    assert (given.notes, given.label, given.untested, given.counted) == ([], "none", None, 0)
    with pytest.raises(BadValue, match=r"value\.pieces: .* greater than"):
        stock.pieces = -1
        encode(stock, Stock)


def test_pydantic_is_not_imported_for_those_who_do_not_use_it() -> None:
    program = (
        "import sys; from perdure.sdk.payloads.values import decode, encode; "
        "decode(encode([1], list[int]), list[int]); print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_pydantic_that_cannot_read_by_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older(BaseModel):
        @classmethod
        def model_validate_json(cls, data: bytes) -> "Older":  # type: ignore[override]
            raise NotImplementedError

    with pytest.raises(BadValue, match="unexpected keyword"):
        decode(b"{}", Older)
    monkeypatch.setattr(pydantic, "VERSION", "2.10.6")
    with pytest.raises(BadValue, match=r"^result: models need pydantic 2\.11 or later; this is 2\.10\.6$"):
        decode(b"{}", Older, where="result")


texts = st.text(st.characters(codec="utf-8"))
floats = st.floats(allow_nan=False, allow_infinity=False)
whole_minutes = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(timedelta(minutes=minutes)))
datetimes = st.datetimes(timezones=st.none() | whole_minutes)
items = st.builds(Item, texts, floats, st.lists(texts, max_size=3))
points = st.builds(Point, x=st.integers(), y=st.integers())
customers = st.builds(
    Customer,
    name=texts,
    born=st.none() | st.dates(),
    limit=st.decimals(allow_nan=False, allow_infinity=False),
    scores=st.dictionaries(st.integers(), floats, max_size=3),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)
nodes = st.recursive(st.builds(Node, texts), lambda inner: st.builds(Node, texts, st.lists(inner, max_size=3)))
FAMILIES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "plain": (Any, plain),
    "int": (int, st.integers()),
    "float": (float, floats),
    "str": (str, texts),
    "bytes": (bytes, st.binary()),
    "tuple": (tuple[int, str, bytes], st.tuples(st.integers(), texts, st.binary())),
    "tuple of any length": (tuple[date, ...], st.lists(st.dates()).map(tuple)),
    "set": (set[int], st.sets(st.integers())),
    "frozenset": (frozenset[str], st.frozensets(texts)),
    "dict by int": (dict[int, float], st.dictionaries(st.integers(), floats)),
    "dict by float": (dict[float, int], st.dictionaries(floats, st.integers())),
    "dict by enum": (dict[Colour, int], st.dictionaries(st.sampled_from(Colour), st.integers())),
    "dict by UUID": (dict[UUID, str], st.dictionaries(st.uuids(), texts)),
    "dict by datetime": (dict[datetime, int], st.dictionaries(datetimes, st.integers())),
    "dict by date": (dict[date, int], st.dictionaries(st.dates(), st.integers())),
    "dict by bytes": (dict[bytes, int], st.dictionaries(st.binary(), st.integers())),
    "datetime": (datetime, datetimes),
    "time": (time, st.times(timezones=st.none() | whole_minutes)),
    "timedelta": (timedelta, st.timedeltas()),
    "UUID": (UUID, st.uuids()),
    "Decimal": (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    "dataclass": (Item, items),
    "frozen dataclass": (Point, points),
    "recursive dataclass": (Node, nodes),
    "generic dataclass": (Box[list[Item]], st.builds(Box, st.lists(items, max_size=3), st.none() | texts)),
    "Struct": (Order, st.builds(Order, st.integers(), st.lists(items, max_size=2), st.just(msgspec.UNSET) | texts)),
    "NamedTuple": (Pair, st.builds(Pair, st.integers(), texts)),
    "TypedDict": (Movie, st.fixed_dictionaries({"title": texts}, optional={"year": st.integers()})),
    "enum": (Size, st.sampled_from(Size)),
    "enum of tuples": (list[Corner], st.lists(st.sampled_from(Corner))),
    "flag": (Rights, st.integers(0, 3).map(Rights)),
    "union": (int | str | None | list[int], st.integers() | texts | st.none() | st.lists(st.integers())),
    "union of dataclasses": (list[Item | Point | None], st.lists(items | points | st.none(), max_size=3)),
    "model": (Customer, customers),
    "list of models": (list[Customer], st.lists(customers, max_size=3)),
    "dict of models": (dict[str, Customer | None], st.dictionaries(texts, customers | st.none(), max_size=3)),
    "dataclass with a model": (Box[Customer], st.builds(Box, customers)),
    "union with a model": (Customer | Item | int, customers | items | st.integers()),
    "generic model": (Page[Customer], st.lists(customers, max_size=2).map(lambda found: Page[Customer](items=found))),
    "everything": (
        Sale,
        st.builds(Sale, items, customers, datetimes, st.dictionaries(st.sampled_from(Size), customers)),
    ),
}


@pytest.mark.parametrize(("hint", "values"), FAMILIES.values(), ids=FAMILIES)
@given(data=st.data())
def test_every_family_round_trips(hint: Any, values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    value = data.draw(values)
    written = encode(value, hint, where="input")
    check_json(written, where="input")
    back = decode(written, hint, where="input")
    assert back == value
    assert type(back) is type(value)
    assert encode(back, hint) == written or isinstance(value, set | frozenset)


@given(value=plain, poison=st.sampled_from([math.nan, math.inf, "\ud800", object(), {1: 2}]), where=st.data())
def test_poison_is_found_wherever_it_lies(value: Any, poison: Any, where: st.DataObject) -> None:
    path = ""
    poisoned = poison
    for _ in range(where.draw(st.integers(0, 6))):
        if where.draw(st.booleans()):
            poisoned, path = [value, poisoned], "[1]" + path
        else:
            poisoned, path = {"a": value, "b c": poisoned}, "['b c']" + path
    with pytest.raises(BadValue) as refusal:
        encode(poisoned, where="input")
    assert refusal.value.message.startswith(f"input{path}: ")


# --- errors ---


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_travels_as_words() -> None:
    data = error_to_json(raised(ValueError("no such order: 7")))
    check_json(data, where="error")
    record = error_from_json(data)
    assert (record.type, record.message) == ("ValueError", "no such order: 7")
    assert record.detail is not None
    assert "in raised" in record.detail
    assert str(record) == "ValueError: no such order: 7"
    assert error_to_json(KeyError("k"), with_detail=False) == b'{"type":"KeyError","message":"\'k\'"}'
    assert str(ErrorRecord("TimeoutError", "")) == "TimeoutError"


def test_a_traceback_is_kept_as_frames() -> None:
    error = raised(ValueError("7"))
    try:
        json.loads("{")
    except ValueError as caught:
        error = caught
    frames = error_from_json(error_to_json(error)).frames
    assert frames is not None
    assert frames[0].function == "test_a_traceback_is_kept_as_frames" and frames[0].own
    assert frames[0].file.endswith("test_payloads.py") and frames[0].source == 'json.loads("{")'
    assert not frames[-1].own and frames[-1].file.endswith("decoder.py") and frames[-1].line > 0


def test_a_long_traceback_has_its_innermost_frames() -> None:
    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 100_000)
        dive(depth - 1)

    try:
        dive(900)
    except ValueError as caught:
        data = error_to_json(caught)
    record = error_from_json(data)
    assert record.frames is not None and len(record.frames) == FRAMES_MAX
    assert record.frames[-1].source == 'raise ValueError("x" * 100_000)'
    assert len(msgspec.json.encode((record.detail, record.frames))) < DETAIL_BYTES_MAX + 4_000


def test_tracebacks_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.sdk.payloads.tracebacks.KEPT", False)
    record = error_from_json(error_to_json(raised(ValueError("7"))))
    assert (record.detail, record.frames) == (None, None)
    assert are_kept(None) and are_kept("yes") and not are_kept("No")
    with pytest.raises(BadRequest, match="PERDURE_TRACEBACKS must be yes or no, got '2'"):
        are_kept("2")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Wordless(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Forgetful(PerdureError):
    def __init__(self, order_id: int) -> None:  # and not that of its base
        self.order_id = order_id


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a\0b\x1b\ud800"), "a␀b␛\ufffd"),
        (ValueError("two\nlines"), "two\nlines"),
        (Unspeakable(), "(the error's text could not be read)"),
        (Wordless(), "(the error's text could not be read)"),
        (Forgetful(7), "7"),
        (type("Odd\x1bName" * 100, (Exception,), {})("x"), "x"),
        (
            ExceptionGroup("several", [ValueError("a"), Unspeakable()]),
            "several (2 sub-exceptions): ValueError: a; Unspeakable: (the error's text could not be read)",
        ),
        (ValueError(Plain), None),
    ],
    ids=name_of,
)
def test_every_error_can_be_recorded(error: BaseException, message: str | None) -> None:
    data = error_to_json(raised(error))
    check_json(data, where="error")
    record = error_from_json(data)
    if message is not None:
        assert record.message == message


def test_a_long_error_is_cut() -> None:
    data = error_to_json(raised(ValueError("é" * 10_000_000)))
    assert len(data) < 64 << 10
    assert error_from_json(data).message.endswith("… [cut, 10,000,000 characters in all]")


def test_an_endless_recursion_can_be_recorded() -> None:
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError) as caught:
        endless()
    assert error_from_json(error_to_json(caught.value)).type == "RecursionError"


@given(message=st.text(st.characters(codec=None, exclude_categories=())))
def test_every_message_can_be_recorded(message: str) -> None:
    check_json(error_to_json(Exception(message)), where="error")


@pytest.mark.parametrize(
    "data", [b'{"message":"what another client sent"}', b'"a text"', b"\xff", b"{", b"[" * 100_000]
)
def test_an_error_of_another_shape_is_shown_as_it_is(data: bytes) -> None:
    record = error_from_json(data)
    assert record.type == "Error"
    assert record.message == data.decode("utf-8", "replace")[:20] or data.startswith((b"{", b"["))


def test_an_error_never_names_code_to_import() -> None:
    record = error_from_json(b'{"type":"os.system","message":"true","module":"os"}')
    assert type(record) is ErrorRecord
    assert record.type == "os.system"


def test_fingerprints_are_short_and_stable() -> None:
    assert fingerprint(b'{"id":7}') == "5d01f7ed883d98ee"
    assert fingerprint(b"1") == fingerprint(b"1") != fingerprint(b"2")


def test_a_group_names_its_causes() -> None:
    group = BaseExceptionGroup(
        "unhandled errors in a TaskGroup", [ValueError("bad id"), ExceptionGroup("deeper", [OSError(), KeyError("k")])]
    )
    record = error_from_json(error_to_json(group))
    assert (
        record.message
        == "unhandled errors in a TaskGroup (2 sub-exceptions): ValueError: bad id; OSError; KeyError: 'k'"
    )


def test_the_causes_of_a_group_are_bounded() -> None:
    many = ExceptionGroup("of all", [ValueError(f"{n} " + "x" * 5_000) for n in range(1_000)])
    message = error_from_json(error_to_json(many)).message
    assert message.startswith("of all (1000 sub-exceptions): ValueError: 0 xxx") and "ValueError: 7 x" in message
    assert message.endswith("; and 992 more") and len(message.encode()) < 10_000
    deep: Exception = ValueError("at the bottom")
    for _ in range(3_000):
        deep = ExceptionGroup("in", [deep])
    assert (
        error_from_json(error_to_json(deep, with_detail=False)).message
        == "in (1 sub-exception): ValueError: at the bottom"
    )


# --- hints ---


async def order(ctx: "Context", input: "Item") -> "list[Customer]":
    raise NotImplementedError


async def bare(ctx, input):  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def nothing_in(ctx: object) -> None:
    raise NotImplementedError


async def lost(ctx: object, input: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
    raise NotImplementedError


async def lost_result(ctx: object, input: int) -> "list[Nowhere]":  # type: ignore[name-defined]  # noqa: F821
    raise NotImplementedError


def returns_awaitable(item: Annotated[int, "kept"]) -> Awaitable[str]:
    raise NotImplementedError


def step(item: Item, *, loud: bool = False) -> UUID:
    raise NotImplementedError


class Service:
    async def method(self, ctx: object, input: Item) -> Point:
        raise NotImplementedError

    async def __call__(self, ctx: object, input: Point) -> Item:
        raise NotImplementedError


@functools.wraps(order)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError


async def gathered(ctx: object, *inputs: Item) -> int:
    raise NotImplementedError


async def unwrapped(*args: object, **kwargs: object) -> int:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("fn", "context", "hints"),
    [
        (order, True, Hints(Item, list[Customer], True)),
        (bare, True, Hints(Unannotated(bare, "input"), Unannotated(bare), True)),
        (max, False, Hints(Any, Unannotated(max), True)),
        (nothing_in, True, Hints(Any, type(None), False)),
        (returns_awaitable, False, Hints(Annotated[int, "kept"], str, True)),
        (step, False, Hints(Item, UUID, True)),
        (Service().method, True, Hints(Item, Point, True)),
        (Service(), True, Hints(Point, Item, True)),
        (wrapped, True, Hints(Item, list[Customer], True)),
        (functools.partial(order, input=ITEM), True, Hints(Any, list[Customer], False)),
        (functools.partial(step, loud=True), False, Hints(Item, UUID, True)),
        (gathered, True, Hints(Item, int, True, has_default=True)),
        (unwrapped, True, Hints(Any, int, True, has_default=True)),
    ],
    ids=[
        "workflow",
        "bare",
        "builtin",
        "nothing in",
        "awaitable",
        "step",
        "method",
        "callable object",
        "wrapped",
        "partial workflow",
        "partial step",
        "gathered",
        "unwrapped",
    ],
)
def test_hints_are_read_from_the_function(fn: Callable[..., Any], context: bool, hints: Hints) -> None:
    assert read_hints(fn, context=context) == hints


def test_local_types_are_found_where_python_can_see_them() -> None:
    class Local:
        pass

    async def workflow(ctx: object, input: "Local") -> int:
        return len([Local])

    assert read_hints(workflow).input is Local


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lost, r"The type hint 'Nowhere' of parameter 'input' of lost\(\) cannot be resolved: name 'Nowhere'"),
        (lost_result, r"The type hint 'list\[Nowhere\]' of the result of lost_result\(\) cannot be resolved"),
    ],
)
def test_a_hint_that_cannot_be_resolved_is_named(fn: Callable[..., Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        read_hints(fn)


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(values_module).failed == 0
