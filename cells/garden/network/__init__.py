"""A container's way to the world: one point-to-point link and its elements in the cell's firewall table."""
