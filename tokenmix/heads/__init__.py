"""Heads of dense tasks, on the feature levels of a backbone."""
