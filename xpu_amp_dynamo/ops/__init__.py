"""Ops that this package defines."""
