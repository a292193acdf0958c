"""Files from strangers and machines that are not kind: each with its expected end, see ``benchmarks/security.py``."""
