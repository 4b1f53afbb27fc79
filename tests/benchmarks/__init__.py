"""Measured claims: each module prints its figures, as JSON with --json."""
