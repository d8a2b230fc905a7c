//! The settings as a process meets them: layers, variables, files, and every problem named at once.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod layers;
mod printed;
mod problems;
mod rules;

use std::collections::BTreeMap;

use common::config::{Binary, InvalidSettings, Loaded, Settings, StoreUrl};
use secrecy::ExposeSecret;

fn variables(given: &[(&str, &str)]) -> BTreeMap<String, String> {
    given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(binary: Binary, given: &[(&str, &str)]) -> Result<Settings, InvalidSettings> {
    Loaded::load(binary, &variables(given)).map(|loaded| loaded.settings)
}

fn good(binary: Binary, given: &[(&str, &str)]) -> Settings {
    load(binary, given).unwrap()
}

fn bad(binary: Binary, given: &[(&str, &str)]) -> String {
    load(binary, given).unwrap_err().to_string()
}

fn shown(binary: Binary, given: &[(&str, &str)]) -> String {
    Loaded::load(binary, &variables(given)).map(|loaded| loaded.to_string()).unwrap()
}

fn redis(settings: &Settings) -> &str {
    match &settings.store.url {
        StoreUrl::Redis(url) => url.expose_secret(),
        other => panic!("{other:?}"),
    }
}
