"""Figures of a recorded run, for the documentation."""
