"""The durable state: each change is one verb, on disk before any caller or worker learns of it."""
