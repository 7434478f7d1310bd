"""Requests of the cell to hosts that tenants name, for images and for files. Knows neither, and no container."""
