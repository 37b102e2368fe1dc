"""Benchmarks that measure a baseline and our way side by side, and judge the ratio."""
