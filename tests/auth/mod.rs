//! Stories in which `auth` matters to somebody else.

mod absence;
mod clocks;
mod crowd;
mod forgeries;
mod revocation;
mod rotation;
mod tokens;
