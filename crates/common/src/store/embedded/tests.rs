//! Failures of the disk, which only a storage below redb can play.
