//! Laying the layers over one another: compiled-in files, files of CONFIG_DIR, then the environment's variables.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::Path,
};

use config::{Config, Value, ValueKind};

use super::{Binary, Environment, layer::Layer, problem::Problem, variables::Variables};

const DEFAULT: &str = include_str!("../../../../config/default.toml");
const DEV: &str = include_str!("../../../../config/dev.toml");
const STG: &str = include_str!("../../../../config/stg.toml");
const PROD: &str = include_str!("../../../../config/prod.toml");

/// The origin of a value that is the compiled-in default.
pub(super) const DEFAULT_ORIGIN: &str = "config/default.toml, built in";
/// The origin of what `chatbot` has by being `chatbot`.
const CHATBOT_ORIGIN: &str = "the default of chatbot";
/// Where `chatbot` keeps everything unless something says otherwise.
const CHATBOT_STORE: &str = "embedded:./data";

/// Every setting with the value of the last layer that gives it one.
pub(super) struct Layered {
    pub(super) environment: Environment,
    pub(super) values: BTreeMap<String, Value>,
    /// Every setting with a value that is good, whatever the layers say: what is compiled in for `dev`.
    pub(super) fallback: BTreeMap<String, Value>,
}

/// Reads and merges all layers. What cannot be read or is unknown goes into `problems`; the rest stands.
pub(super) fn collect(
    binary: Binary,
    all: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Layered {
    let variables = Variables::new(all);
    let environment = environment(&variables, problems);
    let (default, known) = built_in_default(problems);
    let dev = parse(DEV, "config/dev.toml, built in", &known, problems);
    let fallback = merge(vec![default.clone(), dev], problems);
    let mut layers = vec![default];
    let folder = variables
        .get("CONFIG_DIR", "CONFIG_DIR", problems)
        .filter(|given| !given.text.is_empty());
    let folder = folder.as_ref().map(|given| Path::new(given.text.as_str()));
    if let Some(folder) = folder {
        check_folder(folder, environment, problems);
    }
    layers.extend(from_folder(folder, "default.toml", &known, problems));
    let (name, text) = match environment {
        Environment::Dev => ("dev.toml", DEV),
        Environment::Stg => ("stg.toml", STG),
        Environment::Prod => ("prod.toml", PROD),
    };
    layers.push(match from_folder(folder, name, &known, problems) {
        Some(layer) => layer,
        None => parse(text, &format!("config/{name}, built in"), &known, problems),
    });
    if binary == Binary::Chatbot {
        layers
            .iter_mut()
            .filter(|layer| is_built_in(layer))
            .for_each(in_one_process);
    }
    layers.push(Layer::of_variables(variables.well_known(problems)));
    layers.push(Layer::of_variables(variables.prefixed(&known, problems)));
    Layered {
        environment,
        values: merge(layers, problems),
        fallback,
    }
}

fn environment(variables: &Variables<'_>, problems: &mut Vec<Problem>) -> Environment {
    let Some(given) = variables.get("ENVIRONMENT", "ENVIRONMENT", problems) else {
        return Environment::Dev;
    };
    match given.text.trim() {
        "" | "dev" => Environment::Dev,
        "stg" => Environment::Stg,
        "prod" => Environment::Prod,
        other => {
            let wrong = format!("{other:?} is no environment; allowed: dev, stg, prod");
            problems.push(Problem::new("ENVIRONMENT", Some(&given.origin), wrong));
            Environment::Dev
        }
    }
}

/// The compiled-in defaults, which name every setting that there is.
fn built_in_default(problems: &mut Vec<Problem>) -> (Layer, BTreeSet<String>) {
    let table = match DEFAULT.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            problems.push(Problem::new(DEFAULT_ORIGIN, None, error.message()));
            toml::Table::new()
        }
    };
    let mut known = BTreeSet::new();
    names(&table, "", &mut known);
    (
        Layer::of_table(&table, DEFAULT_ORIGIN, &known, problems),
        known,
    )
}

fn names(table: &toml::Table, prefix: &str, known: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => names(inner, &format!("{prefix}{key}."), known),
            _ => {
                known.insert(format!("{prefix}{key}"));
            }
        }
    }
}

/// A folder that holds none of the files that are looked for was not meant.
fn check_folder(folder: &Path, environment: Environment, problems: &mut Vec<Problem>) {
    let wanted = ["default.toml", &format!("{environment}.toml")].map(|name| folder.join(name));
    if !wanted.iter().any(|path| path.exists()) {
        let wrong = format!("{folder:?} holds neither default.toml nor {environment}.toml");
        problems.push(Problem::new("CONFIG_DIR", None, wrong));
    }
}

fn from_folder(
    folder: Option<&Path>,
    name: &str,
    known: &BTreeSet<String>,
    problems: &mut Vec<Problem>,
) -> Option<Layer> {
    let path = folder?.join(name);
    let origin = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(parse(&text, &origin, known, problems)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            problems.push(Problem::new(
                origin,
                None,
                format!("cannot be read: {error}"),
            ));
            None
        }
    }
}

/// A TOML file as a layer. The parser's own message would quote the line, which may hold a secret.
fn parse(text: &str, origin: &str, known: &BTreeSet<String>, problems: &mut Vec<Problem>) -> Layer {
    match text.parse::<toml::Table>() {
        Ok(table) => Layer::of_table(&table, origin, known, problems),
        Err(error) => {
            let before = error
                .span()
                .and_then(|span| text.get(..span.start))
                .unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            problems.push(Problem::new(
                origin,
                None,
                format!("line {line} is not TOML: {}", error.message()),
            ));
            Layer::default()
        }
    }
}

fn merge(layers: Vec<Layer>, problems: &mut Vec<Problem>) -> BTreeMap<String, Value> {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let mut values = BTreeMap::new();
    match builder.build() {
        Ok(merged) => leaves(merged.cache, String::new(), &mut values),
        Err(error) => problems.push(Problem::new("settings", None, error.to_string())),
    }
    values
}

fn leaves(value: Value, path: String, values: &mut BTreeMap<String, Value>) {
    match value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key
                } else {
                    format!("{path}.{key}")
                };
                leaves(value, path, values);
            }
        }
        _ => {
            values.insert(path, value);
        }
    }
}

fn is_built_in(layer: &Layer) -> bool {
    layer.origin.ends_with(", built in")
}

/// The compiled-in files speak of services that meet over a network; `chatbot` is one process with its own store.
fn in_one_process(layer: &mut Layer) {
    layer.values.remove("chat.auth_url");
    if layer.values.remove("store.url").is_some() && layer.origin == DEFAULT_ORIGIN {
        let store = Value::new(Some(&CHATBOT_ORIGIN.to_owned()), CHATBOT_STORE);
        layer.values.insert("store.url".to_owned(), store);
    }
}
