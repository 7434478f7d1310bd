"""Diego's own wire, so that Diego's clients work unchanged: a thin adapter over the functions that bbs/api calls."""
