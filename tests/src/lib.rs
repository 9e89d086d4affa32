//! Tests that see the whole: the journey, the refusals, the money, the layering. What they share.
