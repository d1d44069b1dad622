//! Configuration: one table of settings gives the file's keys, the environment's names, the
//! defaults and the words about them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bursar_core::Caps;
use bursar_store::TenantCaps;

use crate::auth::oidc::{IssuerConfig, read_issuers};
use crate::auth::secret::Secret;
use crate::config::database::{Database, PostgresDatabase, SQLITE, is_postgres};
use crate::credentials::reference::AllowedPrefixes;
use crate::http::client_address::TrustedProxies;
use crate::http::limits::{Deadlines, Limits};
use crate::http::memory_budget::{BodyLimits, ByteBudget};
use crate::http::tls::TlsFiles;
use crate::observe::log::LogFormat;
use crate::protection::thresholds::{Pace, Thresholds};

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

pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        env: "BURSAR_LISTEN",
        default: "127.0.0.1:8080",
        help: "Address and port to listen on.",
    },
    Setting {
        key: "operator_listen",
        env: "BURSAR_OPERATOR_LISTEN",
        default: "",
        help: "Address and port that alone serve /metrics and /fdr; the API stays on listen, the \
               operator's part included. Empty means that listen serves everything.",
    },
    Setting {
        key: "data_dir",
        env: "BURSAR_DATA_DIR",
        default: "./bursar-data",
        help: "Folder of the embedded store and of the secrets that are made on the first start; \
               a server on PostgreSQL needs none.",
    },
    Setting {
        key: "database",
        env: "BURSAR_DATABASE",
        default: "",
        help: "sqlite:<path>, or postgres://... for several nodes; nothing means bursar.db in the \
               data folder.",
    },
    Setting {
        key: "operator_token",
        env: "BURSAR_OPERATOR_TOKEN",
        default: "",
        help: "The operator's bearer token, at least 16 characters: bur_operator_ and 48 random \
               letters and digits. Nothing means the file operator-token in the data folder, made \
               on the first start. On PostgreSQL it is required, the same for every node.",
    },
    Setting {
        key: "secret_key",
        env: "BURSAR_SECRET_KEY",
        default: "",
        help: "The key under which API keys are hashed, at least 32 bytes; nothing means the file \
               secret-key in the data folder, made on the first start. On PostgreSQL it is \
               required, the same for every node.",
    },
    Setting {
        key: "log",
        env: "BURSAR_LOG",
        default: "info",
        help: "What is logged: error, warn, info, debug, trace, or targets with levels.",
    },
    Setting {
        key: "log_format",
        env: "BURSAR_LOG_FORMAT",
        default: "human",
        help: "How lines of the log look: human, or json.",
    },
    Setting {
        key: "metrics_token",
        env: "BURSAR_METRICS_TOKEN",
        default: "",
        help: "A bearer token that is good for /metrics only, at least 16 characters: bur_metrics_ \
               and random letters and digits. Nothing means that only the operator's token is.",
    },
    Setting {
        key: "server.connections_max",
        env: "BURSAR_SERVER_CONNECTIONS_MAX",
        default: "10000",
        help: "Connections that are open at once; beyond that the longest idle one is closed for a \
               new one.",
    },
    Setting {
        key: "server.connections_per_address_max",
        env: "BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX",
        default: "1000",
        help: "Connections that are open at once from one address, of IPv6 from one /56; more are \
               closed. Trusted proxies are not counted.",
    },
    Setting {
        key: "server.streams_max",
        env: "BURSAR_SERVER_STREAMS_MAX",
        default: "128",
        help: "Requests that are open at once on one HTTP/2 connection.",
    },
    Setting {
        key: "server.header_seconds",
        env: "BURSAR_SERVER_HEADER_SECONDS",
        default: "10",
        help: "How long the head of a request may take from its first byte, or a TLS handshake.",
    },
    Setting {
        key: "server.body_seconds",
        env: "BURSAR_SERVER_BODY_SECONDS",
        default: "30",
        help: "How long the body of a request may take.",
    },
    Setting {
        key: "server.idle_seconds",
        env: "BURSAR_SERVER_IDLE_SECONDS",
        default: "75",
        help: "How long a connection may be open without a request.",
    },
    Setting {
        key: "server.write_seconds",
        env: "BURSAR_SERVER_WRITE_SECONDS",
        default: "30",
        help: "How long a client may take nothing of an answer.",
    },
    Setting {
        key: "server.read_seconds",
        env: "BURSAR_SERVER_READ_SECONDS",
        default: "10",
        help: "How long a list or a sum of a tenant may be read, and how long it may wait for its \
               turn; 1 to 600. A read that takes longer is answered 422 READ_TOO_LARGE.",
    },
    Setting {
        key: "server.body_bytes_max_total",
        env: "BURSAR_SERVER_BODY_BYTES_MAX_TOTAL",
        default: "50331648",
        help: "Bytes of all bodies of requests in memory, of one tenant a quarter, inflated ones \
               counted packed and unpacked; beyond that requests are answered 503.",
    },
    Setting {
        key: "server.answer_bytes_max_total",
        env: "BURSAR_SERVER_ANSWER_BYTES_MAX_TOTAL",
        default: "33554432",
        help: "Memory limit for answers above 64 KiB, in bytes, from the first row that is read \
               until the client has taken them. One tenant may use a quarter of it. Requests \
               above the limit get 503, and those that need more than a quarter alone get 422.",
    },
    Setting {
        key: "server.trusted_proxies",
        env: "BURSAR_SERVER_TRUSTED_PROXIES",
        default: "",
        help: "Networks (10.0.0.0/8) and addresses whose X-Forwarded-For is believed, by comma.",
    },
    Setting {
        key: "tls.certificate",
        env: "BURSAR_TLS_CERTIFICATE",
        default: "",
        help: "A PEM file with the certificate and its chain; nothing means no TLS.",
    },
    Setting {
        key: "tls.key",
        env: "BURSAR_TLS_KEY",
        default: "",
        help: "A PEM file with the private key of the certificate.",
    },
    Setting {
        key: "tls.reload_seconds",
        env: "BURSAR_TLS_RELOAD_SECONDS",
        default: "10",
        help: "How often these files are looked at for a new certificate; SIGHUP does it at once.",
    },
    Setting {
        key: "postgres.password_file",
        env: "BURSAR_POSTGRES_PASSWORD_FILE",
        default: "",
        help: "A file with the password of the database's role, for a URL that has none.",
    },
    Setting {
        key: "postgres.writers",
        env: "BURSAR_POSTGRES_WRITERS",
        default: "4",
        help: "Connections to PostgreSQL that write, each for one tenant at a time; 1 to 100.",
    },
    Setting {
        key: "postgres.readers",
        env: "BURSAR_POSTGRES_READERS",
        default: "8",
        help: "Connections to PostgreSQL that read, opened as they are needed; 2 to 1000.",
    },
    Setting {
        key: "server.drain_seconds",
        env: "BURSAR_SERVER_DRAIN_SECONDS",
        default: "20",
        help: "How long requests may take to end after SIGTERM.",
    },
    Setting {
        key: ISSUERS,
        env: "BURSAR_OIDC_ISSUERS",
        default: "",
        help: "Who vouches for people: in the file a table [[oidc.issuers]] for each issuer, in \
               the environment a JSON list of the same objects; nothing means nobody.",
    },
    Setting {
        key: "oidc.token_seconds_max",
        env: "BURSAR_OIDC_TOKEN_SECONDS_MAX",
        default: "86400",
        help: "How long a person's token may be good, in seconds from iat to exp, or from now when \
               it has no iat; tokens that are good for longer are refused.",
    },
    Setting {
        key: "tenant.integrations_max",
        env: "BURSAR_TENANT_INTEGRATIONS_MAX",
        default: "10000",
        help: "Integrations that a tenant may have; five times as many deleted ones are kept.",
    },
    Setting {
        key: "tenant.api_keys_max",
        env: "BURSAR_TENANT_API_KEYS_MAX",
        default: "1000",
        help: "API keys of a tenant that are neither revoked nor expired; as many that ended are \
               kept, the latest.",
    },
    Setting {
        key: "tenant.integration_keys_max",
        env: "BURSAR_TENANT_INTEGRATION_KEYS_MAX",
        default: "200",
        help: "Keys of one integration that are neither revoked nor expired; as many that ended \
               are kept, the latest.",
    },
    Setting {
        key: "protection.requests_per_minute",
        env: "BURSAR_PROTECTION_REQUESTS_PER_MINUTE",
        default: "1000",
        help: "Management requests and reads that a tenant, or an integration by its own key, may \
               send to one route in 60 seconds; 0 is unlimited.",
    },
    Setting {
        key: "protection.requests_per_second",
        env: "BURSAR_PROTECTION_REQUESTS_PER_SECOND",
        default: "100",
        help: "Management requests and reads that a tenant, or an integration by its own key, may \
               send in a second; 0 is unlimited.",
    },
    Setting {
        key: "protection.traffic_per_minute",
        env: "BURSAR_PROTECTION_TRAFFIC_PER_MINUTE",
        default: "60000",
        help: "Telemetry writes and decisions that a tenant, or an integration by its own key, may \
               send to one route in 60 seconds; 0 is unlimited.",
    },
    Setting {
        key: "protection.traffic_per_second",
        env: "BURSAR_PROTECTION_TRAFFIC_PER_SECOND",
        default: "5000",
        help: "Telemetry writes and decisions that a tenant, or an integration by its own key, may \
               send in a second; 0 is unlimited.",
    },
    Setting {
        key: "protection.cost_cents_day",
        env: "BURSAR_PROTECTION_COST_CENTS_DAY",
        default: "0",
        help: "What a tenant may spend on a UTC day, in cents, before its decisions are refused; 0 \
               is unlimited.",
    },
    Setting {
        key: "protection.anomaly_floor",
        env: "BURSAR_PROTECTION_ANOMALY_FLOOR",
        default: "10000",
        help: "Requests of a tenant in five minutes that are taken for usual at least; ten times \
               what is usual is an anomaly; 0 means that none is looked for.",
    },
    Setting {
        key: "limits.reservations_per_integration",
        env: "BURSAR_LIMITS_RESERVATIONS_PER_INTEGRATION",
        default: "50000",
        help: "Reservations of one integration that may be open at once. Further ones get 409.",
    },
    Setting {
        key: "limits.reservations_per_tenant",
        env: "BURSAR_LIMITS_RESERVATIONS_PER_TENANT",
        default: "200000",
        help: "Reservations of one tenant that may be open at once. Further ones get 409.",
    },
    Setting {
        key: "limits.stored_bytes_per_day",
        env: "BURSAR_LIMITS_STORED_BYTES_PER_DAY",
        default: "0",
        help: "Bytes of usage records that a tenant may store on one UTC day; 0 is unlimited. \
               Further records get 429, unless their call was reserved.",
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

/// The setting that is a list of tables.
const ISSUERS: &str = "oidc.issuers";

/// Beginnings of the names that container platforms give to a service called bursar.
const SERVICE_PREFIXES: &[&str] = &["BURSAR_PORT", "BURSAR_SERVICE_"];
/// What the names for any service have in them, and those for its ports.
const SERVICE_PARTS: &[&str] = &["_SERVICE_HOST", "_SERVICE_PORT"];
const PROTOCOLS: &[&str] = &["_TCP", "_UDP", "_SCTP"];
/// Names in the environment that are no settings of the server.
const CLIENT_NAMES: &[&str] = &["BURSAR_URL", "BURSAR_API_KEY", "BURSAR_PROVE"];

/// More writers than this only wait for each other.
const POSTGRES_WRITERS: RangeInclusive<u32> = 1..=100;
/// One reader would let a list keep everyone waiting who is asked for a key; PostgreSQL has a
/// process for each.
const POSTGRES_READERS: RangeInclusive<u32> = 2..=1_000;

/// No read would end in no time; in ten minutes its client has gone.
const READ_SECONDS: RangeInclusive<u32> = 1..=600;

/// More than any threshold has a reason to be.
const AMOUNT_MAX: u32 = 1_000_000_000;

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was said.
    Default,
    /// The configuration file.
    File,
    Environment,
}

/// A configuration, read and checked.
pub struct Config {
    /// Address and port.
    pub listen: String,
    /// Address and port of the operator's routes, if they have their own.
    pub operator_listen: Option<String>,
    /// The data folder.
    pub data_dir: PathBuf,
    /// Where the ledger is kept.
    pub database: Database,
    /// The operator's token, if it was configured.
    pub operator_token: Option<Secret>,
    /// The secret key, if it was configured.
    pub secret_key: Option<Secret>,
    /// What is logged.
    pub log: String,
    /// How lines of the log look.
    pub log_format: LogFormat,
    /// The token of whoever scrapes the metrics, if there is one.
    pub metrics_token: Option<Secret>,
    /// What the front door lets in.
    pub limits: Limits,
    /// What bodies of requests may cost.
    pub body_limits: BodyLimits,
    /// The bytes of all large answers, from the first row until they are taken.
    pub answer_budget: ByteBudget,
    /// How long a list or a sum may be read.
    pub read_time_max: Duration,
    /// The certificate, if TLS is spoken.
    pub tls_files: Option<TlsFiles>,
    /// Who vouches for people.
    pub issuers: Vec<IssuerConfig>,
    /// What tenants are held to when nothing else is said of them.
    pub protection: Thresholds,
    /// What tenants may leave in storage.
    pub caps: Caps,
    /// How many rows of a kind a tenant may have.
    pub tenant_caps: TenantCaps,
    /// What references may name on this server.
    pub allowed_prefixes: AllowedPrefixes,
}

/// What is wrong with a configuration, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {message}")]
    Invalid {
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
        let values = Values(values);
        let secret = |key| values.named(key).map(Secret::new);
        let data_dir = PathBuf::from(values.text("data_dir"));
        let token = |key| match secret(key) {
            Some(token) if !is_strong(&token) => {
                Err(wrong(key, "must have at least 16 characters"))
            }
            token => Ok(token),
        };
        let log_format = LogFormat::named(&values.text("log_format"))
            .ok_or_else(|| wrong("log_format", "must be human or json"))?;
        let body_bytes = values.number("server.body_bytes_max_total")? as usize;
        let answer_bytes = values.number("server.answer_bytes_max_total")? as usize;
        Ok(Self {
            listen: values.text("listen"),
            operator_listen: values.named("operator_listen"),
            database: values.database(&data_dir)?,
            data_dir,
            operator_token: token("operator_token")?,
            secret_key: secret("secret_key"),
            log: values.text("log"),
            log_format,
            metrics_token: token("metrics_token")?,
            limits: values.limits()?,
            body_limits: BodyLimits {
                deadline: values.seconds("server.body_seconds")?,
                budget: ByteBudget::new(body_bytes),
            },
            answer_budget: ByteBudget::new(answer_bytes),
            read_time_max: values.read_time_max()?,
            tls_files: values.tls_files()?,
            issuers: values.issuers()?,
            protection: values.thresholds()?,
            caps: values.caps()?,
            tenant_caps: TenantCaps {
                integrations: values.number("tenant.integrations_max")?,
                api_keys: values.number("tenant.api_keys_max")?,
                integration_keys: values.number("tenant.integration_keys_max")?,
            },
            allowed_prefixes: AllowedPrefixes {
                env: values.list("credentials.env_prefixes"),
                file: values.list("credentials.file_prefixes"),
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
            None if is_of_a_service(&name, &value) => {}
            None if CLIENT_NAMES.contains(&name.as_str()) || name.starts_with("BURSAR_TEST_") => {}
            None => return Err(ConfigError::Unknown(name)),
        }
    }
    Ok(values)
}

/// Whether a container platform tells by it where a service is: one that is called bursar, or whose
/// name begins so, as that of its database.
fn is_of_a_service(name: &str, value: &str) -> bool {
    SERVICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || SERVICE_PARTS.iter().any(|part| name.contains(part))
        || name.ends_with("_PORT") && value.contains("://")
        || name.contains("_PORT_") && PROTOCOLS.iter().any(|protocol| name.contains(protocol))
}

/// What was said for every setting.
struct Values<'a>(&'a BTreeMap<&'static str, String>);

impl Values<'_> {
    fn text(&self, key: &str) -> String {
        self.0.get(key).cloned().unwrap_or_default()
    }

    fn named(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key);
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }

    fn number(&self, key: &str) -> Result<u32, ConfigError> {
        let number = self.text(key).parse::<u32>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| wrong(key, "must be a whole number above 0"))
    }

    /// A number that may be 0.
    fn amount(&self, key: &str) -> Result<u32, ConfigError> {
        let amount = self.text(key).parse::<u32>().ok().filter(|amount| *amount <= AMOUNT_MAX);
        amount.ok_or_else(|| wrong(key, &format!("must be a whole number from 0 to {AMOUNT_MAX}")))
    }

    fn issuers(&self) -> Result<Vec<IssuerConfig>, ConfigError> {
        let token_seconds_max = self.number("oidc.token_seconds_max")?;
        let issuers = read_issuers(&self.text(ISSUERS), token_seconds_max);
        issuers.map_err(|problem| wrong(ISSUERS, &problem))
    }

    fn thresholds(&self) -> Result<Thresholds, ConfigError> {
        Ok(Thresholds {
            management: Pace {
                requests_per_minute: self.amount("protection.requests_per_minute")?,
                requests_per_second: self.amount("protection.requests_per_second")?,
            },
            traffic: Pace {
                requests_per_minute: self.amount("protection.traffic_per_minute")?,
                requests_per_second: self.amount("protection.traffic_per_second")?,
            },
            cost_cents_day: self.amount("protection.cost_cents_day")?,
            anomaly_floor: self.amount("protection.anomaly_floor")?,
        })
    }

    fn caps(&self) -> Result<Caps, ConfigError> {
        let bytes = "limits.stored_bytes_per_day";
        let stored_bytes_per_day = self.text(bytes).parse().ok().filter(|bytes| *bytes >= 0);
        Ok(Caps {
            reservations_per_integration: self
                .number("limits.reservations_per_integration")?
                .into(),
            reservations_per_tenant: self.number("limits.reservations_per_tenant")?.into(),
            stored_bytes_per_day: stored_bytes_per_day
                .ok_or_else(|| wrong(bytes, "must be a whole number"))?,
        })
    }

    fn seconds(&self, key: &str) -> Result<Duration, ConfigError> {
        Ok(Duration::from_secs(self.number(key)?.into()))
    }

    fn read_time_max(&self) -> Result<Duration, ConfigError> {
        let seconds = self.within("server.read_seconds", READ_SECONDS)?;
        Ok(Duration::from_secs(seconds as u64))
    }

    fn within(&self, key: &str, bounds: RangeInclusive<u32>) -> Result<usize, ConfigError> {
        let number = self.number(key)?;
        if !bounds.contains(&number) {
            let (min, max) = bounds.into_inner();
            return Err(wrong(key, &format!("must be from {min} to {max}")));
        }
        Ok(number as usize)
    }

    fn database(&self, data_dir: &Path) -> Result<Database, ConfigError> {
        let writers = self.within("postgres.writers", POSTGRES_WRITERS)?;
        let readers = self.within("postgres.readers", POSTGRES_READERS)?;
        let text = self.text("database");
        if text.is_empty() {
            return Ok(Database::File(data_dir.join("bursar.db")));
        }
        if is_postgres(&text) {
            let password_file = self.named("postgres.password_file").map(PathBuf::from);
            let database = PostgresDatabase::new(&text, password_file, writers, readers);
            return database.map(Database::Postgres).map_err(|problem| wrong("database", problem));
        }
        match text.strip_prefix(SQLITE) {
            Some(path) if !path.is_empty() => Ok(Database::File(PathBuf::from(path))),
            Some(_) | None => Err(wrong("database", "must be sqlite:<path> or postgres://...")),
        }
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let proxies = TrustedProxies::parse(&self.list("server.trusted_proxies"));
        let is_none = |text| format!("has {text:?}, which is neither a network nor an address");
        Ok(Limits {
            connections_max: self.number("server.connections_max")? as usize,
            connections_per_address_max: self.number("server.connections_per_address_max")?
                as usize,
            streams_max: self.number("server.streams_max")?,
            deadlines: Deadlines {
                header: self.seconds("server.header_seconds")?,
                idle: self.seconds("server.idle_seconds")?,
                write: self.seconds("server.write_seconds")?,
            },
            body: self.seconds("server.body_seconds")?,
            drain: self.seconds("server.drain_seconds")?,
            trusted_proxies: proxies
                .map_err(|text| wrong("server.trusted_proxies", &is_none(text)))?,
        })
    }

    fn tls_files(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let reload_every = self.seconds("tls.reload_seconds")?;
        match (self.named("tls.certificate"), self.named("tls.key")) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (certificate.into(), key.into());
                Ok(Some(TlsFiles { certificate, key, reload_every }))
            }
            (Some(_), None) => Err(wrong("tls.key", "is needed with tls.certificate")),
            (None, Some(_)) => Err(wrong("tls.certificate", "is needed with tls.key")),
        }
    }
}

fn wrong(key: &str, problem: &str) -> ConfigError {
    ConfigError::Wrong { name: key.to_owned(), problem: problem.to_owned() }
}

/// Whether a token is long enough to prove the operator.
pub(crate) fn is_strong(token: &Secret) -> bool {
    token.expose().len() >= 16
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
    let tables = if key == ISSUERS { tables(value) } else { None };
    let Some(text) = tables.or_else(|| plain(value)) else {
        return Err(wrong(&key, "must be a text, a number or a list of texts"));
    };
    values.insert(setting.key, text);
    Ok(())
}

/// A list of tables, as the JSON that stands for it in the environment.
fn tables(value: &toml::Value) -> Option<String> {
    let items = value.as_array()?;
    let is_list = !items.is_empty() && items.iter().all(toml::Value::is_table);
    is_list.then(|| serde_json::to_string(items).ok())?
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
        assert_eq!(config.database.file(), Some(Path::new("./bursar-data/bursar.db")));
        assert_eq!(config.allowed_prefixes.env, ["CUS_CRED_", "LLM_API_KEY_"]);
        assert_eq!(config.protection, Thresholds::default());
        assert_eq!(config.tenant_caps, TenantCaps::default());
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let file = "listen = '0.0.0.0:1'\ndata_dir = '/d'\n[server]\ndrain_seconds = 3";
        let config = load(Some(file), &[("BURSAR_LISTEN", "0.0.0.0:2")]).expect("valid");
        assert_eq!(config.listen, "0.0.0.0:2");
        assert_eq!(config.limits.drain, Duration::from_secs(3));
        assert_eq!(config.database.file(), Some(Path::new("/d/bursar.db")));
    }

    #[test]
    fn a_database_of_postgresql_has_its_connections() {
        let url = ("BURSAR_DATABASE", "postgresql://role:hidden@host/bursar");
        let file = "[postgres]\nwriters = 2";
        let config = load(Some(file), &[url]).expect("valid");
        let Database::Postgres(database) = &config.database else { panic!("{}", config.database) };
        assert_eq!((database.writers, database.readers), (2, 8));
        assert_eq!(config.database.to_string(), "postgresql://host/bursar");
        check(
            None,
            &[("BURSAR_POSTGRES_WRITERS", "101")],
            "postgres.writers must be from 1 to 100",
        );
        check(None, &[("BURSAR_POSTGRES_READERS", "1")], "readers must be from 2 to 1000");
        let wrong = ("BURSAR_DATABASE", "postgres://role:hidden@role:x@host/bursar");
        check(None, &[wrong], "database has more than one @");
    }

    #[test]
    fn the_documents_have_every_setting() {
        let documents = include_str!("../../../../docs/operating.md");
        for Setting { key, env, default, help } in SETTINGS {
            let shown = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let row = format!("| `{key}` | `{env}` | {shown} | {help} |");
            assert!(documents.contains(&row), "docs/operating.md lacks the row\n{row}");
        }
    }

    #[test]
    fn what_a_platform_says_about_services_is_no_setting() {
        for (name, value) in [
            ("BURSAR_SERVICE_HOST", "10.0.0.1"),
            ("BURSAR_PORT", "tcp://10.0.0.1:8080"),
            ("BURSAR_POSTGRES_SERVICE_HOST", "10.0.0.1"),
            ("BURSAR_POSTGRES_SERVICE_PORT_POSTGRES", "5432"),
            ("BURSAR_POSTGRES_PORT", "tcp://10.0.0.1:5432"),
            ("BURSAR_POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(load(None, &[(name, value)]).is_ok(), "{name}");
        }
        check(None, &[("BURSAR_POSTGRES_PORT", "5432")], "BURSAR_POSTGRES_PORT is not a setting");
    }

    #[test]
    fn issuers_are_tables_in_the_file_and_json_in_the_environment() {
        let tenant = bursar_core::TenantId::from_number(7).expect("in range");
        let file = format!(
            "[[oidc.issuers]]\nissuer = 'https://a.example'\naudience = 'b'\ntenant = '{tenant}'\n\
             [[oidc.issuers]]\nissuer = 'https://c.example'\naudience = 'b'\ntenant_claim = 'd'"
        );
        let count = |config: Result<Config, ConfigError>| config.expect("valid").issuers.len();
        assert_eq!(count(load(Some(&file), &[])), 2);
        assert_eq!(count(load(Some(&file), &[("BURSAR_OIDC_ISSUERS", "[]")])), 0);
        let json = r#"[{"issuer":"https://a.example","audience":"b","tenant_claim":"d"}]"#;
        assert_eq!(count(load(None, &[("BURSAR_OIDC_ISSUERS", json)])), 1);
        let wrong = "[[oidc.issuers]]\nissuer = 'https://a.example'";
        check(Some(wrong), &[], "oidc.issuers is wrong at [0]: missing field `audience`");
        let unknown = "[[oidc.issuers]]\nissuers = 'https://a.example'";
        check(Some(unknown), &[], "unknown field `issuers`");
        check(Some("[[listen]]\na = 1"), &[], "listen must be a text");
        check(Some("[oidc]\nissuers = [1]"), &[], "oidc.issuers must be");
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
        check(None, &[("BURSAR_METRICS_TOKEN", "short")], "metrics_token must have");
        check(None, &[("BURSAR_LOG_FORMAT", "xml")], "log_format must be human or json");
        check(None, &[("BURSAR_DATABASE", "mysql://x")], "database must be sqlite:<path> or");
        check(None, &[("BURSAR_SERVER_DRAIN_SECONDS", "soon")], "must be a whole number");
        check(None, &[("BURSAR_TLS_KEY", "key.pem")], "tls.certificate is needed");
        check(None, &[("BURSAR_SERVER_READ_SECONDS", "601")], "read_seconds must be from 1 to 600");
        check(None, &[("BURSAR_TLS_CERTIFICATE", "c.pem")], "tls.key is needed");
        let many = [("BURSAR_PROTECTION_COST_CENTS_DAY", "1000000001")];
        check(None, &many, "protection.cost_cents_day must be a whole number from 0 to 1000000000");
        let proxies = [("BURSAR_SERVER_TRUSTED_PROXIES", "10.0.0.0/8, a proxy")];
        check(None, &proxies, "has \"a proxy\", which is neither");
    }
}
