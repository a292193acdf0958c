"""Points: a class for each point of a cloud in space."""
