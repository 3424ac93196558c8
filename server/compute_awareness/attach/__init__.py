"""Attaching the server to the assistants people use: which file each of them reads, and how to change it safely."""
