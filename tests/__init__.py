"""Tests: unit (no services), contract (each port on every backend), system (whole processes), drill (faults)."""
