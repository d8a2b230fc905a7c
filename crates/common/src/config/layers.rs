//! Merging the layers of settings: compiled-in files, files of `CONFIG_DIR`, then the environment's variables.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::Path,
};

use config::{Config, ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};

use super::{
    Binary, Environment,
    invalid_setting::{InvalidSetting, nearest},
    variables::{self, Layer, Variables},
};

const DEFAULT: &str = include_str!("../../../../config/default.toml");
const DEV: &str = include_str!("../../../../config/dev.toml");
const STG: &str = include_str!("../../../../config/stg.toml");
const PROD: &str = include_str!("../../../../config/prod.toml");

/// The origin of a value that is the compiled-in default.
pub(super) const DEFAULT_ORIGIN: &str = "config/default.toml, built in";

/// Every setting with the value of the last layer that gives it one.
pub(super) struct Layered {
    pub(super) environment: Environment,
    /// Each variable whose value is not used, with the one that sets the same setting to another value.
    pub(super) overridden: Vec<(String, String)>,
    pub(super) values: Config,
    /// Every setting with a value that is good, whatever the layers say: what is compiled in for `dev`. It stands in for a wrong
    /// one, so that the rest can be checked, too.
    pub(super) fallback: Config,
}

#[derive(Clone, Debug)]
struct LayerSource(Layer);

impl Source for LayerSource {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Layer, ConfigError> {
        Ok(self.0.clone())
    }
}

/// All layers as one; a later one wins. None of them can fail, so that an error is a mistake of ours.
fn merge<const N: usize>(layers: [Layer; N], problems: &mut Vec<InvalidSetting>) -> Config {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(LayerSource(layer));
    }
    builder.build().unwrap_or_else(|error| {
        problems.push(InvalidSetting::new("settings", None, error.to_string()));
        Config::default()
    })
}

/// A setting with its origin, which `Config::get` would leave out.
pub(super) fn find<'a>(merged: &'a Config, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(&merged.cache, |value, part| match &value.kind {
        ValueKind::Table(table) => table.get(part),
        _ => None,
    })
}

/// Reads and merges all layers. What cannot be read or is unknown goes into `problems`; the rest stands.
pub(super) fn collect(
    binary: Binary,
    all: &Variables,
    problems: &mut Vec<InvalidSetting>,
) -> Layered {
    let environment = environment(all, problems);
    let mut files = Files { known: known_settings(), problems };
    let mut default = files.parse(DEFAULT, DEFAULT_ORIGIN);
    if binary == Binary::Chatbot {
        let origin = "the default of chatbot".to_owned();
        let store = Value::new(Some(&origin), "embedded:./data");
        default.insert("store.url".to_owned(), store);
    }
    let dev = files.parse(DEV, "config/dev.toml, built in");
    let fallback = merge([default.clone(), dev], files.problems);
    let folder = variables::get(all, "CONFIG_DIR", "CONFIG_DIR", files.problems);
    let folder = folder.as_ref().map(variables::text).filter(|folder| !folder.is_empty());
    let folder = folder.map(Path::new);
    if let Some(folder) = folder {
        files.check_folder(folder, environment);
    }
    let own_default = files.read(folder, "default.toml").unwrap_or_default();
    let (name, text) = match environment {
        Environment::Dev => ("dev.toml", DEV),
        Environment::Stg => ("stg.toml", STG),
        Environment::Prod => ("prod.toml", PROD),
    };
    let of_environment = files.read(folder, name).unwrap_or_else(|| {
        let mut layer = files.parse(text, &format!("config/{name}, built in"));
        if binary == Binary::Chatbot {
            // These speak of services that meet over a network; `chatbot` is one process with its own store.
            layer.remove("chat.auth_url");
            layer.remove("store.url");
        }
        layer
    });
    let well_known = variables::well_known(all, files.problems);
    let prefixed = variables::prefixed(all, &files.known, files.problems);
    let overridden = overridden(&well_known, &prefixed);
    let layers = [default, own_default, of_environment, well_known, prefixed];
    let values = merge(layers, files.problems);
    Layered { environment, overridden, values, fallback }
}

fn overridden(lower: &Layer, upper: &Layer) -> Vec<(String, String)> {
    let mut names: Vec<_> = lower
        .iter()
        .filter_map(|(key, given)| {
            let above = upper.get(key).filter(|above| above.kind != given.kind)?;
            Some((given.origin()?.to_owned(), above.origin()?.to_owned()))
        })
        .collect();
    names.sort();
    names
}

fn environment(all: &Variables, problems: &mut Vec<InvalidSetting>) -> Environment {
    let Some(given) = variables::get(all, "ENVIRONMENT", "ENVIRONMENT", problems) else {
        return Environment::Dev;
    };
    match variables::text(&given).trim() {
        "" | "dev" => Environment::Dev,
        "stg" => Environment::Stg,
        "prod" => Environment::Prod,
        other => {
            let wrong = format!("{other:?} is no environment; allowed: dev, stg, prod");
            problems.push(InvalidSetting::new("ENVIRONMENT", given.origin(), wrong));
            Environment::Dev
        }
    }
}

struct Files<'a> {
    known: BTreeSet<String>,
    problems: &'a mut Vec<InvalidSetting>,
}

impl Files<'_> {
    /// A folder that holds none of the files that are looked for was not meant.
    fn check_folder(&mut self, folder: &Path, environment: Environment) {
        let wanted = ["default.toml", &format!("{environment}.toml")];
        if !wanted.iter().any(|name| folder.join(name).exists()) {
            let wrong = format!("{folder:?} holds neither default.toml nor {environment}.toml");
            self.problems.push(InvalidSetting::new("CONFIG_DIR", None, wrong));
        }
    }

    fn read(&mut self, folder: Option<&Path>, name: &str) -> Option<Layer> {
        let path = folder?.join(name);
        let origin = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(self.parse(&text, &origin)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let wrong = format!("cannot be read: {error}");
                self.problems.push(InvalidSetting::new(origin, None, wrong));
                None
            }
        }
    }

    /// A TOML file as a layer. The parser's own message would quote the line, which may hold a secret.
    fn parse(&mut self, text: &str, origin: &str) -> Layer {
        let mut layer = Layer::new();
        match FileFormat::Toml.parse(Some(&origin.to_owned()), text) {
            Ok(table) => self.take(table, "", origin, &mut layer),
            Err(error) => {
                let wrong = match error.downcast_ref::<toml::de::Error>() {
                    Some(error) => {
                        let before = error.span().and_then(|span| text.get(..span.start));
                        let line = before.unwrap_or_default().matches('\n').count() + 1;
                        format!("line {line} is not TOML: {}", error.message())
                    }
                    None => "it holds a number that is too large".to_owned(),
                };
                self.problems.push(InvalidSetting::new(origin, None, wrong));
            }
        }
        layer
    }

    fn take(&mut self, table: Map<String, Value>, prefix: &str, origin: &str, layer: &mut Layer) {
        // Sorted, so that problems come in the same order each time.
        for (key, mut value) in BTreeMap::from_iter(table) {
            let path = format!("{prefix}{key}");
            let section = format!("{path}.");
            let is_section = self.known.iter().any(|known| known.starts_with(&section));
            let wrong = match value.kind {
                ValueKind::Table(inner) if is_section => {
                    self.take(inner, &section, origin, layer);
                    continue;
                }
                kind if self.known.contains(&path) => {
                    value.kind = pairs(kind);
                    layer.insert(path, value);
                    continue;
                }
                _ if is_section => format!("a value stands where the section [{path}] belongs"),
                _ => match nearest(&path, self.known.iter().map(String::as_str)) {
                    Some(near) => format!("no setting has this name; did you mean {near}?"),
                    None => "no setting has this name".to_owned(),
                },
            };
            self.problems.push(InvalidSetting::new(path, Some(origin), wrong));
        }
    }
}

/// A table as a list of `name=value`, which is how a variable gives one.
fn pairs(kind: ValueKind) -> ValueKind {
    let ValueKind::Table(table) = kind else { return kind };
    let pair = |(name, value): (String, Value)| match value.kind {
        ValueKind::String(text) => format!("{name}={text}").into(),
        other => other,
    };
    BTreeMap::from_iter(table).into_iter().map(pair).collect::<Vec<_>>().into()
}

/// The names of all settings: the compiled-in defaults hold each.
fn known_settings() -> BTreeSet<String> {
    fn add(table: &toml::Table, prefix: &str, known: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) => add(inner, &format!("{path}."), known),
                _ => drop(known.insert(path)),
            }
        }
    }
    let mut known = BTreeSet::new();
    add(&DEFAULT.parse().unwrap_or_default(), "", &mut known);
    known
}
