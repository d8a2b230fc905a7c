//! What `auth` keeps, and the only place that spells its keys. All keys of a user share the hash tag `{user}`.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `a:{user}:account` | hash | `v` 1, `created` (ms), `password` (PHC; absent: none) |
//! | `a:{user}:<gen>:login:<id>` | hash | `v` 1, `started` (ms), `proof`, `current`, `previous`, `ended`; lives for `auth.refresh_ttl` from login |
//! | `a:{user}:<gen>:nonce:<id>` | value | 32 random bytes; lives for 10 s from a rotation |
//! | `a:{user}:attempts` | hash | `failed`, `until` (ms); lives for 15 minutes from the last one |
//! | `a:address:{address}:…` | quota | failed attempts and registrations of a network address |
//! | `a:accounts:{NN}` | index | the ids of accounts, scored by creation (ms), in 64 slots |
//! | `i:…` | | see `common::identity`: the state of accounts, API keys, ended logins, `i:erase:{NN}` |

mod accounts;
mod api_keys;
mod attempts;
mod key_files;
mod logins;

pub use accounts::{Change, Loaded};
pub use api_keys::{MAX_KEYS, key_ids, key_ids_read};
pub use attempts::Attempts;
pub use key_files::{Complaint, Folder, KeyFile, KeyFileError, make_first, read_all};
pub use logins::{Ended, LoginRecord};

use common::store::{Bytes, Store};

/// The way to everything that `auth` keeps.
#[derive(Clone)]
pub struct Repository {
    pub(crate) store: Store,
}

impl Repository {
    /// A repository in that store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

/// A number as a field holds it.
fn number(value: impl std::fmt::Display) -> Bytes {
    Bytes::from(value.to_string())
}

/// A field as text; `None` where it is absent or not text.
fn text(fields: &std::collections::HashMap<String, Bytes>, name: &str) -> Option<String> {
    fields
        .get(name)
        .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}
