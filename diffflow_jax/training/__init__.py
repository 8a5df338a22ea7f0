"""Training: state, step, loop, checkpoints, and what a config resolves to."""
