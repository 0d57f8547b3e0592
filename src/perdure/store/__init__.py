"""The durable state. Each change is one verb, and it is on disk before any caller or worker learns of it."""
