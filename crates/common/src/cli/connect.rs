//! `check-config --connect`: asks what the settings name, and says what to do where it does not answer.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;

use super::healthcheck::{answers_health, reachable};
use crate::{
    clock,
    config::{Binary, Settings, StoreUrl},
    http::CheckFailure,
    shutdown::Shutdown,
    store::{NewStore, Store, StoreError, StoreHealth, check_format, eviction_warning},
};

/// How long the store may take to answer; a first connection takes longer than a call.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);
const STORE_AGAIN: Duration = Duration::from_millis(100);

/// Clocks that differ by more than this make tokens look expired or not valid yet: their leeway is 30 s.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// What was asked, and what came: a few words where all is well, else what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub subject: String,
    pub result: Result<String, String>,
}

impl Finding {
    pub fn new(subject: impl Into<String>, result: Result<String, String>) -> Self {
        let subject = subject.into();
        Self { subject, result }
    }

    /// Whether a clock elsewhere (Unix milliseconds) agrees with ours.
    pub fn of_clock(whose: &str, theirs: i64) -> Self {
        let apart = Duration::from_millis(theirs.abs_diff(clock::now_ms()));
        let seconds = apart.as_secs_f64();
        let found = format!("it differs from this machine's by {seconds:.1} s");
        let result = if apart > CLOCKS_DIFFER {
            Err(format!("{found}; let NTP set both (tokens allow 30 s)"))
        } else {
            Ok(found)
        };
        Self::new(format!("clock of {whose}"), result)
    }
}

/// The findings as lines, and whether all is well.
pub(super) fn report(findings: &[Finding]) -> (String, bool) {
    let line = |Finding { subject, result }: &Finding| match result {
        Ok(found) => format!("ok      {subject}: {found}\n"),
        Err(problem) => format!("WRONG   {subject}: {problem}\n"),
    };
    let text = findings.iter().map(line).collect();
    (text, findings.iter().all(|finding| finding.result.is_ok()))
}

/// What every binary needs: its ports and the store, with its clock.
pub(super) async fn check(
    binary: Binary,
    settings: &Settings,
    shutdown: &Shutdown,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (setting, address) in settings.listeners(binary) {
        findings.push(port(setting, address).await);
    }
    store(&settings.store.url, shutdown, &mut findings).await;
    findings
}

async fn port(setting: &str, address: SocketAddr) -> Finding {
    let result = match TcpListener::bind(address).await {
        Ok(_) => Ok("it is free".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if answers_health(reachable(address)).await {
                Ok("this service runs there already".to_owned())
            } else {
                Err("another process uses it; stop that one or set another address".to_owned())
            }
        }
        Err(error) => Err(format!(
            "cannot listen there: {error}; set an address of this machine, with a port that this user may open"
        )),
    };
    Finding::new(format!("{setting} {address}"), result)
}

async fn store(url: &StoreUrl, shutdown: &Shutdown, findings: &mut Vec<Finding>) {
    if let StoreUrl::Embedded(dir) = url {
        let result = writable(dir).map_err(|error| {
            format!("cannot write there: {error}; give this user the folder, or set another one")
        });
        findings.push(Finding::new(format!("store.url {}", dir.display()), result));
        return;
    }
    let pinged = async {
        let store = Store::open(url, shutdown)?;
        Ok((ping(&store).await?, store))
    };
    let (health, store) = match pinged.await {
        Ok(pinged) => pinged,
        Err(error) => {
            findings.push(Finding::new("store.url", Err(advice(&error))));
            return;
        }
    };
    let result = match (health, check_format(&store, NewStore::LeaveAlone).await) {
        (_, Ok(Err(wrong))) => Err(wrong.to_string()),
        (StoreHealth::Degraded(reason), _) => Err(format!("only a part of it answers: {reason}")),
        (StoreHealth::Whole, _) => Ok("it answers".to_owned()),
    };
    findings.push(Finding::new("store.url", result));
    if !store.is_shared() {
        return;
    }
    // A read takes the store's time with it.
    if store.read(Vec::new()).await.is_ok() {
        findings.push(Finding::of_clock("the store", store.clock().now_ms()));
    }
    if let Some(warning) = eviction_warning(&store).await {
        findings.push(Finding::new("store.url", Err(warning)));
    }
}

/// Asks until the store answers: the first connection is being made.
async fn ping(store: &Store) -> Result<StoreHealth, StoreError> {
    let give_up = Instant::now() + STORE_TIMEOUT;
    loop {
        match store.ping().await {
            Err(_) if Instant::now() < give_up => tokio::time::sleep(STORE_AGAIN).await,
            result => return result,
        }
    }
}

fn advice(error: &StoreError) -> String {
    let CheckFailure { shown, .. } = CheckFailure::of_store(error);
    format!(
        "{shown} ({error}); check the address, user name, password and database in it, and that Redis runs"
    )
}

/// Whether files can be made in a folder, or the folder itself in the nearest one that is there.
fn writable(dir: &std::path::Path) -> io::Result<String> {
    let there = dir.ancestors().find(|dir| dir.is_dir() || dir.as_os_str().is_empty());
    let folder = match there {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => std::path::Path::new("."),
    };
    let probe = folder.join(format!(".check-config-{}", std::process::id()));
    std::fs::File::create_new(&probe)?;
    std::fs::remove_file(&probe)?;
    Ok("it can be written".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_another_process_uses_is_wrong_and_a_free_one_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let silent = port("chat.listen", address).await;
        assert!(silent.result.unwrap_err().contains("another process"));
        drop(taken);
        assert_eq!(port("chat.listen", address).await.result, Ok("it is free".into()));
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_said_with_what_to_do() {
        let mut findings = Vec::new();
        let url = StoreUrl::Redis("redis://:s3cret@127.0.0.1:1/0".into());
        store(&url, &Shutdown::new(), &mut findings).await;
        let (text, is_well) = report(&findings);
        assert!(!is_well && text.contains("WRONG   store.url: it cannot be reached"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let finding = |apart: i64| Finding::of_clock("the store", clock::now_ms() + apart).result;
        assert!(finding(2000).is_ok() && finding(-2000).is_ok());
        assert!(finding(20_000).is_err() && finding(-20_000).is_err());
    }

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(writable(&dir.path().join("a/b")).is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(writable(std::path::Path::new("/proc/nothing")).is_err());
    }
}
