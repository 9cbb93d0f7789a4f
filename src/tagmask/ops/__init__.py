"""Pure functions on tensors: no modules, no state, no device calls, no settings objects."""
