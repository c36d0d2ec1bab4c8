"""Proofs and checks on the user's own machine."""
