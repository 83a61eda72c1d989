"""Objectives: what a model may be pursuing; one file for each kind."""
