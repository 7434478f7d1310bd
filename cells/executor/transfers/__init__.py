"""Files that workloads have fetched and sent: over HTTP, through a cache, into and out of containers."""
