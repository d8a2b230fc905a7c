//! The rate limit: a tower layer, its keys and its headers. The count itself is [`crate::store::Store::admit`].
