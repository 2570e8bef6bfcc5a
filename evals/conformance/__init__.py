"""The conformance kit: what any agent must keep to, tried in memory in seconds. `conforms` is the way in."""
