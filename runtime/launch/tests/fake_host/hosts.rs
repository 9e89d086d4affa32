//! Whole machines, good ones.
