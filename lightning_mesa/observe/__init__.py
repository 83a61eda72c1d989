"""Running a model without leaving a trace on its training."""
