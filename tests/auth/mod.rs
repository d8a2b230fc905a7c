//! Stories in which `auth` matters to somebody else.

mod absence;
mod forgeries;
mod revocation;
mod tokens;
