"""Serving a team over Streamable HTTP: who may call, how much, and what is never looked at."""
