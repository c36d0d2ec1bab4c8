"""The commands: each parses its options, calls one function of the service and prints what it returns."""
