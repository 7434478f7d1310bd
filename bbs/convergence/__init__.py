"""Repairs what a lost process or a lost network left behind; never the first attempt at anything."""
