"""What a project's calls out are signed with."""

from typing import NamedTuple

from perdure.store.interface import query, verb


class Secrets(NamedTuple):
    """A project's secret, and the one before it as long as that is used as well."""

    secret: str
    made_at_us: int
    previous: str | None
    previous_until_us: int | None
    links: str
    """What links to pages are signed with; shown to nobody."""

    def at(self, now_us: int) -> tuple[str, ...]:
        """Those that sign at a time."""
        if self.previous is None or self.previous_until_us is None or self.previous_until_us <= now_us:
            return (self.secret,)
        return (self.secret, self.previous)


@verb
async def read_signing(*, project_id: str) -> Secrets | None:
    """What the project signs with; None before it first had to."""
    rows = await query("read_signing", project_id=project_id)
    return Secrets(*rows[0]) if rows else None


@verb
async def make_signing(*, project_id: str, secret: str, links: str, now_us: int) -> Secrets:
    """What the project signs with: these two when it has none."""
    await query("insert_signing", project_id=project_id, secret=secret, links=links, now_us=now_us)
    [row] = await query("read_signing", project_id=project_id)
    return Secrets(*row)


@verb
async def rotate_signing(*, project_id: str, secret: str, links: str, until_us: int, now_us: int) -> Secrets:
    """Sign with `secret` from now on, and until `until_us` with the present one as well; an earlier one ends."""
    if not await query("rotate_signing", project_id=project_id, secret=secret, until_us=until_us, now_us=now_us):
        await query("insert_signing", project_id=project_id, secret=secret, links=links, now_us=now_us)
    [row] = await query("read_signing", project_id=project_id)
    return Secrets(*row)
