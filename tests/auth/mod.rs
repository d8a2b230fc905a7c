//! Stories in which `auth` matters to somebody else.
