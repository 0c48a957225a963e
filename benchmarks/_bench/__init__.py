"""What benchmarks/run consists of: one module per part, and what they share."""
