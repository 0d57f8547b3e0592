import dataclasses
import functools
from typing import Any

import msgspec

from perdure.sdk.payloads.faults import not_json
from perdure.sdk.payloads.models import is_model_type


def _write_foreign(value: Any) -> object:
    if is_model_type(type(value)):
        return msgspec.Raw(value.model_dump_json(by_alias=False, round_trip=True).encode())
    return dump_foreign(value)


def dump_foreign(value: Any) -> object:
    if is_model_type(type(value)):
        return value.model_dump(mode="json", by_alias=False, round_trip=True)
    # A subclass may override these methods; the base's give the bare value.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(not_json(value))


write = msgspec.json.Encoder(enc_hook=_write_foreign).encode
write_plain = msgspec.json.Encoder().encode
read_plain = msgspec.json.Decoder().decode


@functools.lru_cache(maxsize=4_096)
def field_names(cls: Any) -> tuple[str, ...] | None:
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    attributes = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else tuple(attribute.name for attribute in attributes)
