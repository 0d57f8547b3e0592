"""The API's shapes of transcripts (see `wire/public.py`)."""

from msgspec import Raw, Struct

from perdure.wire.public import Position
from perdure.wire.transcripts import Entry, Page


class TranscriptEntryResponse(Struct, frozen=True):
    """One entry; a summary stands for every entry up to `summary_of`, and for summaries before it."""

    seq: int
    message: Raw
    summary_of: int | None = None


class TranscriptResponse(Struct, frozen=True):
    """Entries of a transcript at a version, in order. `next` is the `after` of the following page, if there is one."""

    version: int
    entries: list[TranscriptEntryResponse]
    next: int | None = None

    @classmethod
    def of(cls, page: Page) -> "TranscriptResponse":
        return cls(page.version, [TranscriptEntryResponse(*entry) for entry in page.entries], page.next)

    def page(self) -> Page:
        return Page(self.version, [Entry(one.seq, one.message, one.summary_of) for one in self.entries], self.next)


class AppendMessagesRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Messages of any JSON, to be added to the end. With a `version` only if that is the newest."""

    messages: list[Raw]
    version: Position | None = None


class AppendMessagesResponse(Struct, frozen=True):
    """The version that the messages made."""

    version: int
