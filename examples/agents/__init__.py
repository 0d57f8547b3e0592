"""Durable agents, one idea per file. Each runs offline: `python -m examples.agents.tools`.

With a key of a provider they run on its models: `AGENT_MODEL=openai:gpt-5.2 OPENAI_API_KEY=… python -m …`.
"""
