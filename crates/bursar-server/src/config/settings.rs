//! Reads the configuration from the file and the environment.

use std::path::Path;

use super::database::{Database, DatabaseSetting, PostgresDatabase};
use super::error::ConfigError;
use super::given::{Given, Origin, Sources};
use super::section::Section;
pub use super::sections::Config;
use super::sections::postgres::PostgresSettings;
use super::setting::Setting;

/// The file of the embedded store in the data folder.
const DATABASE_FILE: &str = "bursar.db";

/// Every setting.
pub fn settings() -> Vec<Setting> {
    Config::settings()
}

/// The value of a setting, and its origin.
pub struct InForce {
    pub(crate) setting: Setting,
    /// The value as text, with secrets in clear.
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

impl Config {
    /// Reads a file, if any, and the environment, which overrides it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let sources = Sources::read(file, environment)?;
        Self::read(&Given::assign(&sources, &settings())?)
    }

    /// The value of every setting, and its origin.
    ///
    /// # Errors
    /// [`ConfigError`] if a source cannot be read. Values are not validated.
    pub fn in_force(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<InForce>, ConfigError> {
        let (sources, settings) = (Sources::read(file, environment)?, settings());
        let given = Given::assign(&sources, &settings)?;
        let row = |setting: Setting| InForce {
            text: given.text(&setting),
            origin: given.origin(&setting),
            setting,
        };
        Ok(settings.into_iter().map(row).collect())
    }

    /// The configured database.
    pub fn database(&self) -> Database {
        match &self.storage.database {
            DatabaseSetting::InDataDir => Database::File(self.storage.data_dir.join(DATABASE_FILE)),
            DatabaseSetting::File(path) => Database::File(path.clone()),
            DatabaseSetting::Postgres(address) => {
                let PostgresSettings { password_file, writers, readers } = &self.postgres;
                Database::Postgres(PostgresDatabase {
                    address: address.clone(),
                    password_file: password_file.clone(),
                    writers: writers.to_usize(),
                    readers: readers.to_usize(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protection::thresholds::Thresholds;
    use bursar_store::TenantCaps;

    const SEE_EXAMPLE: &str = " (`bursar config example` prints all settings)";

    fn load(file: Option<&str>, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bursar.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).expect("written");
        }
        let env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Config::load(file.map(|_| path.as_path()), env)
    }

    #[track_caller]
    fn check(file: Option<&str>, env: &[(&str, &str)], expected: &str) {
        let message = load(file, env).err().map(|error| error.to_string()).unwrap_or_default();
        // The folder of the file differs each time.
        let from = message.find("bursar.toml").unwrap_or_default();
        let said = message.get(from..).unwrap_or_default();
        assert_eq!(said.replace(SEE_EXAMPLE, ""), expected);
    }

    #[test]
    fn nothing_configured_is_a_working_configuration() {
        let config = load(None, &[("PATH", "/bin")]).expect("defaults");
        assert_eq!(config.listener.listen, "127.0.0.1:8080");
        assert_eq!(config.database().file(), Some(Path::new("./bursar-data/bursar.db")));
        let prefixes = config.credentials.allowed_prefixes();
        assert_eq!(prefixes.env, ["CUS_CRED_", "LLM_API_KEY_"]);
        assert_eq!(config.protection.thresholds(), Thresholds::default());
        assert_eq!(config.tenant.caps(), TenantCaps::default());
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let file = "listen = '0.0.0.0:1'\ndata_dir = '/d'\n[server]\ndrain_seconds = 3";
        let config = load(Some(file), &[("BURSAR_LISTEN", "0.0.0.0:2")]).expect("valid");
        assert_eq!(config.listener.listen, "0.0.0.0:2");
        assert_eq!(config.server.limits().drain, Duration::from_secs(3));
        assert_eq!(config.database().file(), Some(Path::new("/d/bursar.db")));
    }

    #[test]
    fn a_number_and_a_list_may_be_texts_in_the_file() {
        let file = "[server]\ndrain_seconds = '3'\n[credentials]\nenv_prefixes = 'A_, B_'\n\
                    file_prefixes = ['/c']";
        let config = load(Some(file), &[]).expect("valid");
        assert_eq!(config.server.drain_seconds.to_u32(), 3);
        let prefixes = config.credentials.allowed_prefixes();
        assert_eq!((prefixes.env.len(), prefixes.file.len()), (2, 1));
        let empty = ("BURSAR_CREDENTIALS_ENV_PREFIXES", "");
        let config = load(Some(file), &[empty]).expect("valid");
        assert!(config.credentials.allowed_prefixes().env.is_empty());
    }

    #[test]
    fn a_database_of_postgresql_has_its_connections() {
        let url = ("BURSAR_DATABASE", "postgresql://role:hidden@host/bursar");
        let config = load(Some("[postgres]\nwriters = 2"), &[url]).expect("valid").database();
        let Database::Postgres(database) = &config else { panic!("{config}") };
        assert_eq!((database.writers, database.readers), (2, 8));
        assert_eq!(config.to_string(), "postgresql://host/bursar");
    }

    #[test]
    fn variables_that_a_platform_sets_for_services_are_no_settings() {
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
        assert!(load(None, &[("BURSAR_POSTGRES_PORT", "5432")]).is_err());
    }

    #[test]
    fn issuers_are_tables_in_the_file_and_json_in_the_environment() {
        let tenant = bursar_core::TenantId::from_number(7).expect("in range");
        let file = format!(
            "[[oidc.issuers]]\nissuer = 'https://a.example'\naudience = 'b'\ntenant = '{tenant}'\n\
             [[oidc.issuers]]\nissuer = 'https://c.example'\naudience = 'b'\ntenant_claim = 'd'"
        );
        let count =
            |config: Result<Config, ConfigError>| config.expect("valid").oidc.issuers.0.len();
        assert_eq!(count(load(Some(&file), &[])), 2);
        assert_eq!(count(load(Some(&file), &[("BURSAR_OIDC_ISSUERS", "[]")])), 0);
        let json = r#"[{"issuer":"https://a.example","audience":"b","tenant_claim":"d"}]"#;
        assert_eq!(count(load(None, &[("BURSAR_OIDC_ISSUERS", json)])), 1);
    }

    #[test]
    fn an_error_in_a_list_names_the_item_and_its_line() {
        let first = "issuer = 'https://a.example'\naudience = 'b'\ntenant_claim = 'd'\n";
        let list = |second: &str| format!("[[oidc.issuers]]\n{first}[[oidc.issuers]]\n{second}");
        let lacks = list("issuer = 'https://c.example'");
        check(Some(&lacks), &[], "bursar.toml:5: oidc.issuers[1] lacks the key `audience`");
        let wrong = list("issuer = 1\naudience = 'b'");
        check(
            Some(&wrong),
            &[],
            "bursar.toml:6: oidc.issuers[1].issuer is `1`; it must be a string",
        );
        let twice = list(first);
        check(Some(&twice), &[], "bursar.toml:1: oidc.issuers[1].issuer is already in the list");
        let json = r#"[{"issuer":"https://a.example","audience":"b","tenant":"acme"}]"#;
        let tenant = "BURSAR_OIDC_ISSUERS[0].tenant must be the id of a tenant";
        check(None, &[("BURSAR_OIDC_ISSUERS", json)], tenant);
        check(
            None,
            &[("BURSAR_OIDC_ISSUERS", "acme")],
            "BURSAR_OIDC_ISSUERS[0] is not valid JSON: expected value at line 1 column 1",
        );
        check(
            Some("[oidc]\nissuers = [1]"),
            &[],
            "bursar.toml:2: oidc.issuers[0] is `1`; it must be a table with issuer, audience and tenant or tenant_claim",
        );
    }

    #[test]
    fn a_name_that_is_no_setting_is_refused_with_the_one_that_it_resembles() {
        check(
            Some("lisen = 'x'"),
            &[],
            "bursar.toml:1: lisen is not a setting; did you mean listen?",
        );
        check(
            Some("[server]\n\nconnections = 1"),
            &[],
            "bursar.toml:3: server.connections is not a setting; did you mean server.connections_max?",
        );
        check(
            Some("[sever]\ndrain_seconds = 1"),
            &[],
            "bursar.toml:1: sever is not a setting; did you mean server?",
        );
        check(
            None,
            &[("BURSAR_LISTN", "x")],
            "BURSAR_LISTN is not a setting; did you mean BURSAR_LISTEN?",
        );
        check(
            None,
            &[("BURSAR_ENTIRELY_DIFFERENT", "x")],
            "BURSAR_ENTIRELY_DIFFERENT is not a setting",
        );
    }

    #[test]
    fn an_error_does_not_repeat_a_secret() {
        check(
            None,
            &[("BURSAR_OPERATOR_TOKEN", "short")],
            "BURSAR_OPERATOR_TOKEN must have at least 16 characters",
        );
        check(
            Some("metrics_token = 'short'"),
            &[],
            "bursar.toml:1: metrics_token must have at least 16 characters",
        );
        check(
            Some("metrics_token = 12345678901234567890"),
            &[],
            "bursar.toml:1: metrics_token must be a string",
        );
        check(Some("secret_key = 1"), &[], "bursar.toml:1: secret_key must be a string");
        check(
            None,
            &[("BURSAR_DATABASE", "mysql://x")],
            "BURSAR_DATABASE must be sqlite:<path> or postgres://...",
        );
        check(
            None,
            &[("BURSAR_DATABASE", "postgres://role:hidden@role:x@host/bursar")],
            "BURSAR_DATABASE has more than one @: in a role or a password, write it as %40",
        );
    }

    #[test]
    fn an_error_names_the_place_the_value_and_what_is_possible() {
        check(
            Some("[[listen]]\na = 1"),
            &[],
            "bursar.toml:1: listen is a list; it must be a string",
        );
        check(
            Some("log = 'info'\nlisten = "),
            &[],
            "bursar.toml:2 is not valid TOML: string values must be quoted, expected literal string",
        );
        check(
            None,
            &[("BURSAR_LOG_FORMAT", "xml")],
            "BURSAR_LOG_FORMAT is \"xml\"; it must be human or json",
        );
        check(
            None,
            &[("BURSAR_SERVER_DRAIN_SECONDS", "soon")],
            "BURSAR_SERVER_DRAIN_SECONDS is \"soon\"; it must be a whole number from 1 to 4294967295",
        );
        check(
            None,
            &[("BURSAR_SERVER_DRAIN_SECONDS", "0")],
            "BURSAR_SERVER_DRAIN_SECONDS is `0`; it must be a whole number from 1 to 4294967295",
        );
        check(
            Some("[server]\ndrain_seconds = true"),
            &[],
            "bursar.toml:2: server.drain_seconds is `true`; it must be a whole number from 1 to 4294967295",
        );
        check(
            Some("[server]\nread_seconds = 601"),
            &[],
            "bursar.toml:2: server.read_seconds is `601`; it must be a whole number from 1 to 600",
        );
        check(
            None,
            &[("BURSAR_POSTGRES_WRITERS", "101")],
            "BURSAR_POSTGRES_WRITERS is `101`; it must be a whole number from 1 to 100",
        );
        check(
            None,
            &[("BURSAR_POSTGRES_READERS", "1")],
            "BURSAR_POSTGRES_READERS is `1`; it must be a whole number from 2 to 1000",
        );
        check(
            None,
            &[("BURSAR_PROTECTION_COST_CENTS_DAY", "1000000001")],
            "BURSAR_PROTECTION_COST_CENTS_DAY is `1000000001`; it must be a whole number from 0 to 1000000000",
        );
    }

    #[test]
    fn an_error_about_two_settings_or_an_item_names_it() {
        check(None, &[("BURSAR_TLS_KEY", "key.pem")], "BURSAR_TLS_KEY requires tls.certificate");
        check(
            Some("[tls]\ncertificate = 'c.pem'"),
            &[],
            "bursar.toml:2: tls.certificate requires tls.key",
        );
        check(
            None,
            &[("BURSAR_SERVER_TRUSTED_PROXIES", "10.0.0.0/8, a proxy")],
            "BURSAR_SERVER_TRUSTED_PROXIES has \"a proxy\", which is neither an address nor a \
             network such as 10.0.0.0/8",
        );
        check(
            Some("[server]\ntrusted_proxies = ['']"),
            &[],
            "bursar.toml:2: server.trusted_proxies has \"\", which is neither an address nor a \
             network such as 10.0.0.0/8",
        );
        check(
            Some("[credentials]\nenv_prefixes = ['A_', '']"),
            &[],
            "bursar.toml:2: credentials.env_prefixes[1] must not be empty",
        );
        check(
            Some("[credentials]\nenv_prefixes = 5"),
            &[],
            "bursar.toml:2: credentials.env_prefixes is `5`; it must be a list",
        );
    }
}
