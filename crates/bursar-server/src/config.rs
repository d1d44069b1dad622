//! Configuration: one table of settings gives the file's keys, the environment's names, the
//! defaults and the words about them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::credential_ref::AllowedPrefixes;
use crate::secret::Secret;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file, with its section.
    pub key: &'static str,
    /// The environment's name, which overrides the file.
    pub env: &'static str,
    /// What holds when nothing is said; empty for nothing.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        env: "BURSAR_LISTEN",
        default: "127.0.0.1:8080",
        help: "Address and port to listen on.",
    },
    Setting {
        key: "data_dir",
        env: "BURSAR_DATA_DIR",
        default: "./bursar-data",
        help: "Folder of the embedded store and of the secrets that are made on the first start.",
    },
    Setting {
        key: "database",
        env: "BURSAR_DATABASE",
        default: "",
        help: "sqlite:<path>; nothing means bursar.db in the data folder.",
    },
    Setting {
        key: "operator_token",
        env: "BURSAR_OPERATOR_TOKEN",
        default: "",
        help: "The operator's bearer token, at least 16 characters; nothing means the file \
               operator-token in the data folder, made on the first start.",
    },
    Setting {
        key: "secret_key",
        env: "BURSAR_SECRET_KEY",
        default: "",
        help: "The key under which API keys are hashed, at least 32 bytes; nothing means the file \
               secret-key in the data folder, made on the first start.",
    },
    Setting {
        key: "log",
        env: "BURSAR_LOG",
        default: "info",
        help: "What is logged: error, warn, info, debug, trace, or targets with levels.",
    },
    Setting {
        key: "server.connections_max",
        env: "BURSAR_SERVER_CONNECTIONS_MAX",
        default: "10000",
        help: "Connections that are open at once; more wait to be accepted.",
    },
    Setting {
        key: "server.drain_seconds",
        env: "BURSAR_SERVER_DRAIN_SECONDS",
        default: "20",
        help: "How long requests may take to end after SIGTERM.",
    },
    Setting {
        key: "credentials.env_prefixes",
        env: "BURSAR_CREDENTIALS_ENV_PREFIXES",
        default: "CUS_CRED_,LLM_API_KEY_",
        help: "Beginnings of environment variables that env:// references may name, by comma.",
    },
    Setting {
        key: "credentials.file_prefixes",
        env: "BURSAR_CREDENTIALS_FILE_PREFIXES",
        default: "",
        help: "Folders whose files file:// references may name, by comma; nothing means none.",
    },
];

/// Beginnings of the names that container platforms give to a service called bursar.
const SERVICE_PREFIXES: &[&str] = &["BURSAR_PORT", "BURSAR_SERVICE_"];
/// Names in the environment that are no settings of the server.
const CLIENT_NAMES: &[&str] = &["BURSAR_URL", "BURSAR_API_KEY", "BURSAR_PROVE"];

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was said.
    Default,
    /// The configuration file.
    File,
    /// The environment.
    Environment,
}

/// A configuration, read and checked.
pub struct Config {
    /// Address and port.
    pub listen: String,
    /// The data folder.
    pub data_dir: PathBuf,
    /// The embedded store's file.
    pub database: PathBuf,
    /// The operator's token, if it was configured.
    pub operator_token: Option<Secret>,
    /// The secret key, if it was configured.
    pub secret_key: Option<Secret>,
    /// What is logged.
    pub log: String,
    /// Connections at once.
    pub connections_max: usize,
    /// Seconds to drain.
    pub drain_seconds: u64,
    /// What references may name on this server.
    pub allowed_prefixes: AllowedPrefixes,
}

/// What is wrong with a configuration, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {message}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What the reader said.
        message: String,
    },
    /// A name that is no setting.
    #[error("{0} is not a setting; known are: {known}", known = known_names())]
    Unknown(String),
    /// A setting has a value that does not work.
    #[error("{name} {problem}")]
    Wrong {
        /// Which setting, as it was given.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

fn known_names() -> String {
    SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ")
}

impl Config {
    /// Reads a file, if there is one, and the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::of(&values(file, environment)?)
    }

    /// The value of every setting, and where it comes from.
    ///
    /// # Errors
    /// [`ConfigError`] for what cannot be read; values are not checked.
    pub fn in_force(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<(&'static Setting, String, Origin)>, ConfigError> {
        let environment: Vec<(String, String)> = environment.collect();
        let filed = values(file, std::iter::empty())?;
        let found = values(file, environment.iter().cloned())?;
        let origin = |setting: &Setting| {
            if environment.iter().any(|(name, _)| name == setting.env) {
                Origin::Environment
            } else if filed.get(setting.key).is_some_and(|value| value != setting.default) {
                Origin::File
            } else {
                Origin::Default
            }
        };
        let row = |setting: &'static Setting| {
            (setting, found.get(setting.key).cloned().unwrap_or_default(), origin(setting))
        };
        Ok(SETTINGS.iter().map(row).collect())
    }

    fn of(values: &BTreeMap<&'static str, String>) -> Result<Self, ConfigError> {
        let text = |key: &str| values.get(key).cloned().unwrap_or_default();
        let secret = |key: &str| Some(text(key)).filter(|text| !text.is_empty()).map(Secret::new);
        let list = |key: &str| {
            text(key)
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let number = |key: &str| {
            text(key).parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(|| {
                let problem = "must be a whole number above 0".to_owned();
                ConfigError::Wrong { name: key.to_owned(), problem }
            })
        };
        let data_dir = PathBuf::from(text("data_dir"));
        let operator_token = secret("operator_token");
        if operator_token.as_ref().is_some_and(|token| !is_strong(token)) {
            let problem = "must have at least 16 characters".to_owned();
            return Err(ConfigError::Wrong { name: "operator_token".to_owned(), problem });
        }
        Ok(Self {
            listen: text("listen"),
            database: database(&text("database"), &data_dir)?,
            data_dir,
            operator_token,
            secret_key: secret("secret_key"),
            log: text("log"),
            connections_max: number("server.connections_max")? as usize,
            drain_seconds: number("server.drain_seconds")?.into(),
            allowed_prefixes: AllowedPrefixes {
                env: list("credentials.env_prefixes"),
                file: list("credentials.file_prefixes"),
            },
        })
    }
}

/// What the file and the environment over it say, as texts.
fn values(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let mut values: BTreeMap<&'static str, String> =
        SETTINGS.iter().map(|setting| (setting.key, setting.default.to_owned())).collect();
    if let Some(path) = file {
        read_file(path, &mut values)?;
    }
    for (name, value) in environment.filter(|(name, _)| name.starts_with("BURSAR_")) {
        match SETTINGS.iter().find(|setting| setting.env == name) {
            Some(setting) => drop(values.insert(setting.key, value)),
            // What clients and tests of the process read themselves.
            None if SERVICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => {}
            None if CLIENT_NAMES.contains(&name.as_str()) || name.starts_with("BURSAR_TEST_") => {}
            None => return Err(ConfigError::Unknown(name)),
        }
    }
    Ok(values)
}

/// Whether a token is long enough to prove the operator.
pub(crate) fn is_strong(token: &Secret) -> bool {
    token.expose().len() >= 16
}

fn database(text: &str, data_dir: &Path) -> Result<PathBuf, ConfigError> {
    if text.is_empty() {
        return Ok(data_dir.join("bursar.db"));
    }
    match text.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        Some(_) | None => {
            let problem = "must be sqlite:<path>".to_owned();
            Err(ConfigError::Wrong { name: "database".to_owned(), problem })
        }
    }
}

fn read_file(path: &Path, values: &mut BTreeMap<&'static str, String>) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        ConfigError::Invalid { path: path.to_owned(), message: error.message().to_owned() }
    })?;
    for (name, value) in table {
        let Some(section) = value.as_table() else {
            put(values, name, &value)?;
            continue;
        };
        for (inner, value) in section {
            put(values, format!("{name}.{inner}"), value)?;
        }
    }
    Ok(())
}

fn put(
    values: &mut BTreeMap<&'static str, String>,
    key: String,
    value: &toml::Value,
) -> Result<(), ConfigError> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
        return Err(ConfigError::Unknown(key));
    };
    let Some(text) = plain(value) else {
        let problem = "must be a text, a number or a list of texts".to_owned();
        return Err(ConfigError::Wrong { name: key, problem });
    };
    values.insert(setting.key, text);
    Ok(())
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Boolean(_)
        | toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: Option<&str>, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bursar.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).expect("written");
        }
        let env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Config::load(file.map(|_| path.as_path()), env)
    }

    #[test]
    fn nothing_configured_is_a_working_configuration() {
        let config = load(None, &[("PATH", "/bin")]).expect("defaults");
        assert_eq!(config.listen, "127.0.0.1:8080");
        assert_eq!(config.database, Path::new("./bursar-data/bursar.db"));
        assert_eq!(config.allowed_prefixes.env, ["CUS_CRED_", "LLM_API_KEY_"]);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let file = "listen = '0.0.0.0:1'\ndata_dir = '/d'\n[server]\ndrain_seconds = 3";
        let config = load(Some(file), &[("BURSAR_LISTEN", "0.0.0.0:2")]).expect("valid");
        assert_eq!(config.listen, "0.0.0.0:2");
        assert_eq!(config.drain_seconds, 3);
        assert_eq!(config.database, Path::new("/d/bursar.db"));
    }

    #[test]
    fn the_documents_have_every_setting() {
        let documents = include_str!("../../../docs/operating.md");
        for Setting { key, env, default, help } in SETTINGS {
            let shown = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let row = format!("| `{key}` | `{env}` | {shown} | {help} |");
            assert!(documents.contains(&row), "docs/operating.md lacks the row\n{row}");
        }
    }

    #[track_caller]
    fn check(file: Option<&str>, env: &[(&str, &str)], expected: &str) {
        let message = load(file, env).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(Some("lisen = 'x'"), &[], "lisen is not a setting");
        check(Some("[server]\nconnections = 1"), &[], "server.connections is not a setting");
        check(Some("listen = "), &[], "not valid TOML");
        check(None, &[("BURSAR_LISTN", "x")], "BURSAR_LISTN is not a setting");
        check(None, &[("BURSAR_OPERATOR_TOKEN", "short")], "operator_token must have");
        check(None, &[("BURSAR_DATABASE", "mysql://x")], "database must be sqlite:");
        check(None, &[("BURSAR_SERVER_DRAIN_SECONDS", "soon")], "must be a whole number");
    }
}
