"""What tools/benchmark.py measures: each benchmark is a function from a number of rounds to rows."""
