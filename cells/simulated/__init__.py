"""Cells without a kernel: the product's rep around containers that are only remembered. Needs no root and no Linux."""
