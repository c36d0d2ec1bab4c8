"""What becomes of a study: its winner confirmed, exported, retrained, used, reported."""
