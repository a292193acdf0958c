"""Pure functions on tensors: the transforms, and the naive definition of every mixer. Import from the modules."""
