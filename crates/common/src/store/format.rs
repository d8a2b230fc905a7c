//! The number of the stored format: a store of another one is refused at the start.

use std::time::Duration;

use super::{Bytes, Check, Committed, Found, Op, Read, Store, StoreError, Txn};
use crate::{clock::Clock, config::StoreSettings, shutdown::Shutdown};

/// The format that this program reads and writes. It changes when keys or records do so that an older program cannot read
/// them, or this one cannot read older ones.
const FORMAT: &str = "2";

/// Holds it: one key, in a slot of its own.
const KEY: &str = "i:format";

/// Stores from before there was a number have this index and no number.
const UNNUMBERED: &str = "a:accounts";

/// Between two attempts while the store does not answer.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// What becomes of a store without a number that holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewStore {
    Number,
    /// It is left to `auth`: `chat` may write none of its keys, and a look changes nothing.
    LeaveAlone,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store has format {found}, and this program needs format {FORMAT}: start the version that wrote it, \
     or let store.url name an empty one (another database number, cluster or folder)"
)]
pub struct FormatError {
    found: String,
}

/// Opens the store, and sees that it is of our format. Waits for it as long as a call may take: where it does not answer, its
/// format is looked at once it does, and a wrong one ends the process.
///
/// # Errors
/// As of [`Store::open`]; [`FormatError`].
pub async fn start(
    settings: &StoreSettings,
    new: NewStore,
    shutdown: &Shutdown,
) -> anyhow::Result<Store> {
    let StoreSettings { url, durability } = settings;
    let store = Store::open_with(url, *durability, Clock::system(), shutdown)?;
    match check_format(&store, new).await {
        Ok(checked) => checked?,
        Err(_) => {
            let (later, failed) = (store.clone(), shutdown.clone());
            shutdown.spawn_until_stop(async move {
                if let Some(error) = wait_for_format(&later, new).await {
                    failed.fail(error.into());
                }
            });
        }
    }
    Ok(store)
}

async fn wait_for_format(store: &Store, new: NewStore) -> Option<FormatError> {
    loop {
        if let Ok(checked) = check_format(store, new).await {
            return checked.err();
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Looks at the number. A new store is given one where `new` says so.
///
/// # Errors
/// [`StoreError::Unavailable`]: the number could not be read.
pub async fn check_format(
    store: &Store,
    new: NewStore,
) -> Result<Result<(), FormatError>, StoreError> {
    if let Some(held) = held(store).await? {
        return Ok(expect(&held));
    }
    if new == NewStore::LeaveAlone {
        return Ok(Ok(()));
    }
    let unnumbered = Read::Newest { key: UNNUMBERED.to_owned(), before: None, limit: 1 };
    let older = store.read(vec![unnumbered]).await?;
    if matches!(older.found.first(), Some(Found::Members(members)) if !members.is_empty()) {
        return Ok(expect("1"));
    }
    let number =
        Op::Set { key: KEY.to_owned(), value: Bytes::from_static(FORMAT.as_bytes()), ttl: None };
    let txn = Txn::durable().check(Check::Absent(KEY.to_owned())).op(number);
    match store.commit(txn).await {
        Ok(Committed::Applied) => Ok(Ok(())),
        // Somebody was faster, maybe of another format.
        Ok(Committed::Refused(_)) => Ok(expect(&held(store).await?.unwrap_or_default())),
        // Nothing new can be written into a full store, which was in use then.
        Err(StoreError::Full(_)) => Ok(Ok(())),
        Err(error) => Err(error),
    }
}

async fn held(store: &Store) -> Result<Option<String>, StoreError> {
    let mut found = store.read(vec![Read::Value(KEY.to_owned())]).await?;
    Ok(found.value(0).map(|number| String::from_utf8_lossy(&number).into_owned()))
}

fn expect(found: &str) -> Result<(), FormatError> {
    match found == FORMAT {
        true => Ok(()),
        false => Err(FormatError { found: found.chars().take(20).collect() }),
    }
}
