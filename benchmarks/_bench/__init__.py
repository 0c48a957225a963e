"""The parts of benchmarks/run: one module per part, and the modules that they share."""
