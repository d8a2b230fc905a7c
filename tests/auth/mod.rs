//! Stories in which `auth` matters to somebody else.

mod absence;
mod revocation;
mod tokens;
