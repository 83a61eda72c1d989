"""Writing down what was found: metrics, TensorBoard, JSON lines, a table."""
