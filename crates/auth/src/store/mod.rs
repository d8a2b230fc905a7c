//! What `auth` stores; the only place that spells its keys, but for `i:` and the rate limit's. All keys of a user share the hash tag `{user}`.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `a:{user}:account` | hash | `v` 1, `created` (ms), `password` (PHC; absent: none), `logins_end` (ms) |
//! | `a:{user}:<gen>:login:<id>` | hash | `v` 1, `started` (ms), `proof`, `current`, `previous`, `ended`; lives for `auth.refresh_ttl` from login |
//! | `a:{user}:<gen>:nonce:<id>` | value | 32 random bytes; lives for 10 s from a rotation |
//! | `a:{user}:attempts` | hash | `failed`, `until` (ms); lives for 15 minutes from the last one |
//! | `a:address:{address}:…` | quota | failed attempts and registrations of a network address |
//! | `a:accounts:{NN}` | index | the ids of accounts, scored by creation (ms), in 64 slots |
//! | `a:idle:{NN}` | index | accounts without a password, scored by when they are next looked at (ms), in 64 slots |
//! | `i:…` | | see `common::identity`: the state of accounts, API keys, ended logins, `i:erase:{NN}` |

mod accounts;
mod api_keys;
mod attempts;
mod change;
mod indexes;
pub mod key_files;
mod logins;

use std::collections::HashMap;

use common::store::{Bytes, Key, Op};

pub use self::{
    accounts::{AccountStore, OwnedAccount},
    api_keys::MAX_KEYS,
    attempts::AttemptStore,
    change::Change,
};

fn number(value: impl std::fmt::Display) -> Bytes {
    Bytes::from(value.to_string())
}

/// A field as text; `None` where it is absent or not text.
fn text(fields: &HashMap<String, Bytes>, name: &str) -> Option<String> {
    String::from_utf8(fields.get(name)?.to_vec()).ok()
}

fn set_field(key: &Key, field: &str, value: impl Into<Bytes>) -> Op {
    Op::FieldSet(key.clone(), field.to_owned(), value.into())
}
