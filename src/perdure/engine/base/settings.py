"""The engine's settings with units, defaults and bounds."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import fields

from perdure.engine.base.addresses import Policy
from perdure.wire.base.errors import BadRequest

DAY_SECONDS: Final = 86_400

Seconds = Annotated[float, Meta(gt=0, le=DAY_SECONDS)]
Days = Annotated[float, Meta(ge=0, le=36_525)]


class EngineSettings(Struct, frozen=True, kw_only=True):
    """Times are in seconds unless the name says otherwise. Raises `BadRequest` for an invalid value."""

    lease_seconds: Seconds = 12.0
    """How long a worker may be silent before other workers get its work."""
    beat_seconds: Seconds | None = None
    """How often a worker renews its lease: at least twice per lease. Default: four times."""
    outage_seconds: Seconds = 600.0
    """How long a worker keeps running steps and unreported outcomes while the store takes no writes."""
    grace_seconds: Annotated[float, Meta(ge=0, le=DAY_SECONDS)] = 30.0
    """How long a cancelled execution may clean up before the server ends it."""
    poll_seconds: Seconds = 1.0
    """How often the store is queried without a hint."""
    retention_days: Days = 30.0
    """How long final executions and events of topics are kept."""
    retention_workflows: dict[str, Days] = {}
    """Exceptions by workflow id, in days."""
    retention_statuses: dict[Literal["completed", "failed", "cancelled"], Days] = {}
    """Exceptions by final status, in days. `retention_workflows` takes precedence."""
    idempotency_hours: Annotated[float, Meta(gt=0, le=8_784)] = 24.0
    """How long answers to Idempotency-Keys are kept, from the end of executions that they started."""

    outbound_hosts: tuple[str, ...] = ()
    """Hosts that may be called although they are not public, also over plain HTTP: names (`hooks.internal`,
    `*.svc.cluster.local`), addresses, networks (`10.0.0.0/8`)."""

    otlp_endpoint: str = ""
    """The collector for spans of ended executions (OTLP over HTTP): `http://collector:4318`."""
    otlp_headers: tuple[str, ...] = ()
    """Headers for the collector, `name=value`."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_setting(field.name, getattr(self, field.name), field.type)
        Policy(self.outbound_hosts)
        if self.beat_seconds is not None and self.beat_seconds > self.lease_seconds / 2:
            raise BadRequest(
                "Setting beat_seconds must be at most half of lease_seconds, or the first beat that is late costs a "
                f"worker its lease; got {self.beat_seconds!r} and {self.lease_seconds!r}."
            )


def check_setting(where: str, value: object, kind: object, *, strict: bool = True) -> object:
    """Raises `BadRequest` with setting, value and rule."""
    try:
        return convert(value, kind, strict=strict)
    except ValidationError as error:
        raise BadRequest(f"Setting {where}: {error}, got {value!r}.") from None
