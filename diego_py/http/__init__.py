"""HTTP as every hop speaks it: the chain, the budget, the request id and the timings on both sides of a connection."""
