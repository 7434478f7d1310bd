"""How a process lives: its parts in order, configuration, logs, metrics, clock."""
