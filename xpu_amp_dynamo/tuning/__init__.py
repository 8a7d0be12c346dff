"""Finds which modules of a model run in which precision for the fewest bytes within a tolerance."""
