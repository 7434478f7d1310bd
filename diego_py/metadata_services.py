"""Where clouds have their metadata services: the places of which nothing else says that nobody may be sent there.

Most have link-local or private addresses, and are denied with those. Pure.
"""

from typing import Final

PUBLIC_NETWORKS: Final = ("168.63.129.16/32", "192.0.0.0/24")
"""Those of two clouds, which are of the public range by their number only."""
