"""The durable state. Each change is one verb."""
