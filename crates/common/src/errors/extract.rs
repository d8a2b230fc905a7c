//! Extractors that refuse in our own shape, so that handlers receive values that are already right.
