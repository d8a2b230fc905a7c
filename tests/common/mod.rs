//! Stories of what both services share.

mod harness;
