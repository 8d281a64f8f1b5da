"""What `./scripts/bench` measures, and how it reports it."""
