"""Files of a container, in and out as tar streams, by a child process that is inside the container's root."""
