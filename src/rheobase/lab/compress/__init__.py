"""Compression: networks whose weights hold zeros and few distinct values, made small and fast."""
