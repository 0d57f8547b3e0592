"""The durable state. A verb makes each change."""
