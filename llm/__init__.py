"""The gateway between agents and model providers."""
