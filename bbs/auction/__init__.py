"""Which cell gets an instance, and why not the others. Pure: no await, no clock, no random."""
