"""Inverse reinforcement learning: pure functions on tensors, for one decision and for many."""
