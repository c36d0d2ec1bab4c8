"""Proofs and checks on the user's machine."""
