"""Mathematics on tensors: limits, exact tests, regressions, splits."""
