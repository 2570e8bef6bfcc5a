"""Postgres and Redis behind ports, each with a memory twin under the same tests."""
