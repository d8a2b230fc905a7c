//! Merging the layers of settings: compiled-in files, files of `CONFIG_DIR`, then the environment's variables.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::Path,
};

use config::{Config, ConfigError, Map, Source, Value, ValueKind};
use serde::Deserialize;

use super::{
    Binary, Environment,
    invalid_setting::{InvalidSetting, nearest},
    variables::Variables,
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
    pub(super) values: BTreeMap<String, Value>,
    /// Every setting with a value that is good, whatever the layers say: what is compiled in for `dev`.
    pub(super) fallback: BTreeMap<String, Value>,
}

/// One layer: known settings only, by their dotted names.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Reads and merges all layers. What cannot be read or is unknown goes into `problems`; the rest stands.
pub(super) fn collect(
    binary: Binary,
    all: &BTreeMap<String, String>,
    problems: &mut Vec<InvalidSetting>,
) -> Layered {
    let variables = Variables::new(all);
    let environment = environment(&variables, problems);
    let mut files = Files {
        known: BTreeSet::new(),
        problems,
    };
    let default = files.built_in_default(binary);
    let dev = files.parse(DEV, "config/dev.toml, built in");
    let fallback = merge(vec![default.clone(), dev], files.problems);
    let folder = variables.get("CONFIG_DIR", "CONFIG_DIR", files.problems);
    let folder = folder.filter(|given| !given.text.is_empty());
    let folder = folder.as_ref().map(|given| Path::new(given.text.as_str()));
    if let Some(folder) = folder {
        files.check_folder(folder, environment);
    }
    let mut layers = vec![default];
    layers.extend(files.read_file(folder, "default.toml"));
    let (name, text) = match environment {
        Environment::Dev => ("dev.toml", DEV),
        Environment::Stg => ("stg.toml", STG),
        Environment::Prod => ("prod.toml", PROD),
    };
    let own = files.read_file(folder, name);
    layers.push(own.unwrap_or_else(|| {
        let mut layer = files.parse(text, &format!("config/{name}, built in"));
        if binary == Binary::Chatbot {
            forget_the_network(&mut layer);
        }
        layer
    }));
    let Files { known, .. } = files;
    layers.push(Layer(variables.well_known(problems)));
    layers.push(Layer(variables.prefixed(&known, problems)));
    Layered {
        environment,
        values: merge(layers, problems),
        fallback,
    }
}

fn environment(variables: &Variables<'_>, problems: &mut Vec<InvalidSetting>) -> Environment {
    let Some(given) = variables.get("ENVIRONMENT", "ENVIRONMENT", problems) else {
        return Environment::Dev;
    };
    match given.text.trim() {
        "" | "dev" => Environment::Dev,
        "stg" => Environment::Stg,
        "prod" => Environment::Prod,
        other => {
            let wrong = format!("{other:?} is no environment; allowed: dev, stg, prod");
            problems.push(InvalidSetting::new(
                "ENVIRONMENT",
                Some(&given.origin),
                wrong,
            ));
            Environment::Dev
        }
    }
}

/// The compiled-in files speak of services that meet over a network; `chatbot` is one process with its own store.
fn forget_the_network(layer: &mut Layer) {
    layer.0.remove("chat.auth_url");
    layer.0.remove("store.url");
}

/// Reads files into layers.
struct Files<'a> {
    /// The settings that there are.
    known: BTreeSet<String>,
    problems: &'a mut Vec<InvalidSetting>,
}

impl Files<'_> {
    /// The compiled-in defaults, which name every setting that there is.
    fn built_in_default(&mut self, binary: Binary) -> Layer {
        if let Ok(table) = DEFAULT.parse() {
            names(&table, "", &mut self.known);
        }
        let mut layer = self.parse(DEFAULT, DEFAULT_ORIGIN);
        if binary == Binary::Chatbot {
            forget_the_network(&mut layer);
            let origin = "the default of chatbot".to_owned();
            let store = Value::new(Some(&origin), "embedded:./data");
            layer.0.insert("store.url".to_owned(), store);
        }
        layer
    }

    /// A folder that holds none of the files that are looked for was not meant.
    fn check_folder(&mut self, folder: &Path, environment: Environment) {
        let wanted = ["default.toml", &format!("{environment}.toml")];
        if !wanted.iter().any(|name| folder.join(name).exists()) {
            let wrong = format!("{folder:?} holds neither default.toml nor {environment}.toml");
            self.problems
                .push(InvalidSetting::new("CONFIG_DIR", None, wrong));
        }
    }

    fn read_file(&mut self, folder: Option<&Path>, name: &str) -> Option<Layer> {
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
        let mut layer = Layer::default();
        match text.parse::<toml::Table>() {
            Ok(table) => self.take(table, "", origin, &mut layer),
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = before.unwrap_or_default().matches('\n').count() + 1;
                let wrong = format!("line {line} is not TOML: {}", error.message());
                self.problems.push(InvalidSetting::new(origin, None, wrong));
            }
        }
        layer
    }

    fn take(&mut self, table: toml::Table, prefix: &str, origin: &str, layer: &mut Layer) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            let section = format!("{path}.");
            let is_section = self.known.iter().any(|known| known.starts_with(&section));
            let wrong = match value {
                toml::Value::Table(inner) if is_section => {
                    self.take(inner, &section, origin, layer);
                    continue;
                }
                toml::Value::Table(_) if self.known.contains(&path) => {
                    "a table stands where a value belongs".to_owned()
                }
                value if self.known.contains(&path) => match Value::deserialize(value) {
                    Ok(value) => {
                        let value = Value::new(Some(&origin.to_owned()), value.kind);
                        layer.0.insert(path, value);
                        continue;
                    }
                    Err(_) => "it is no value of a setting".to_owned(),
                },
                _ if is_section => format!("a value stands where the section [{path}] belongs"),
                _ => match nearest(&path, self.known.iter().map(String::as_str)) {
                    Some(near) => format!("no setting has this name; did you mean {near}?"),
                    None => "no setting has this name".to_owned(),
                },
            };
            self.problems
                .push(InvalidSetting::new(path, Some(origin), wrong));
        }
    }
}

fn names(table: &toml::Table, prefix: &str, known: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => names(inner, &format!("{path}."), known),
            _ => drop(known.insert(path)),
        }
    }
}

fn merge(layers: Vec<Layer>, problems: &mut Vec<InvalidSetting>) -> BTreeMap<String, Value> {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let mut values = BTreeMap::new();
    match builder.build() {
        Ok(merged) => leaves(merged.cache, "", &mut values),
        Err(error) => problems.push(InvalidSetting::new("settings", None, error.to_string())),
    }
    values
}

fn leaves(value: Value, path: &str, values: &mut BTreeMap<String, Value>) {
    match value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                leaves(
                    value,
                    format!("{path}.{key}").trim_start_matches('.'),
                    values,
                );
            }
        }
        _ => drop(values.insert(path.to_owned(), value)),
    }
}
