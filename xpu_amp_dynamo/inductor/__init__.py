"""Inductor as an inner backend: our passes as it takes them, its settings, what keeps its defects from users."""
