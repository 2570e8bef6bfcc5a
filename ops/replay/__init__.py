"""Replay: recorded tickets decided again in a shadow, and where the decisions differ."""
