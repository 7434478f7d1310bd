"""Container images: where they come from (references, registries, OCI layouts) and how a cell keeps their layers."""
