"""The towers: pure functions of parameters and input, used through `init` and `apply`."""
