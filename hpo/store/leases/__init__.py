"""Who may run which trial, when a study is over, and how a worker's changes reach the store."""
