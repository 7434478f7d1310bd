"""What a workload does, step by step: one file a kind of action. A step is awaited, and ended by cancelling it."""
