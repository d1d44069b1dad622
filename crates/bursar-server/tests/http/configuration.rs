//! Names and defaults of settings, which deployments rely on.

use bursar_server::config::settings::settings;

/// Keys, variables and defaults that must not change. A new setting need not be listed.
const KNOWN: &[(&str, &str, &str)] = &[
    ("listen", "BURSAR_LISTEN", "127.0.0.1:8080"),
    ("operator_listen", "BURSAR_OPERATOR_LISTEN", ""),
    ("data_dir", "BURSAR_DATA_DIR", "./bursar-data"),
    ("database", "BURSAR_DATABASE", ""),
    ("operator_token", "BURSAR_OPERATOR_TOKEN", ""),
    ("secret_key", "BURSAR_SECRET_KEY", ""),
    ("log", "BURSAR_LOG", "info"),
    ("log_format", "BURSAR_LOG_FORMAT", "human"),
    ("metrics_token", "BURSAR_METRICS_TOKEN", ""),
    ("server.connections_max", "BURSAR_SERVER_CONNECTIONS_MAX", "10000"),
    ("server.connections_per_address_max", "BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX", "1000"),
    ("server.streams_max", "BURSAR_SERVER_STREAMS_MAX", "128"),
    ("server.header_seconds", "BURSAR_SERVER_HEADER_SECONDS", "10"),
    ("server.body_seconds", "BURSAR_SERVER_BODY_SECONDS", "30"),
    ("server.idle_seconds", "BURSAR_SERVER_IDLE_SECONDS", "75"),
    ("server.write_seconds", "BURSAR_SERVER_WRITE_SECONDS", "30"),
    ("server.read_seconds", "BURSAR_SERVER_READ_SECONDS", "10"),
    ("server.body_bytes_max_total", "BURSAR_SERVER_BODY_BYTES_MAX_TOTAL", "50331648"),
    ("server.answer_bytes_max_total", "BURSAR_SERVER_ANSWER_BYTES_MAX_TOTAL", "33554432"),
    ("server.trusted_proxies", "BURSAR_SERVER_TRUSTED_PROXIES", ""),
    ("tls.certificate", "BURSAR_TLS_CERTIFICATE", ""),
    ("tls.key", "BURSAR_TLS_KEY", ""),
    ("tls.reload_seconds", "BURSAR_TLS_RELOAD_SECONDS", "10"),
    ("postgres.password_file", "BURSAR_POSTGRES_PASSWORD_FILE", ""),
    ("postgres.writers", "BURSAR_POSTGRES_WRITERS", "4"),
    ("postgres.readers", "BURSAR_POSTGRES_READERS", "8"),
    ("server.drain_seconds", "BURSAR_SERVER_DRAIN_SECONDS", "20"),
    ("oidc.issuers", "BURSAR_OIDC_ISSUERS", ""),
    ("oidc.token_seconds_max", "BURSAR_OIDC_TOKEN_SECONDS_MAX", "86400"),
    ("tenant.integrations_max", "BURSAR_TENANT_INTEGRATIONS_MAX", "10000"),
    ("tenant.api_keys_max", "BURSAR_TENANT_API_KEYS_MAX", "1000"),
    ("tenant.integration_keys_max", "BURSAR_TENANT_INTEGRATION_KEYS_MAX", "200"),
    ("protection.requests_per_minute", "BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "1000"),
    ("protection.requests_per_second", "BURSAR_PROTECTION_REQUESTS_PER_SECOND", "100"),
    ("protection.traffic_per_minute", "BURSAR_PROTECTION_TRAFFIC_PER_MINUTE", "60000"),
    ("protection.traffic_per_second", "BURSAR_PROTECTION_TRAFFIC_PER_SECOND", "5000"),
    ("protection.cost_cents_day", "BURSAR_PROTECTION_COST_CENTS_DAY", "0"),
    ("protection.anomaly_floor", "BURSAR_PROTECTION_ANOMALY_FLOOR", "10000"),
    ("limits.reservations_per_integration", "BURSAR_LIMITS_RESERVATIONS_PER_INTEGRATION", "50000"),
    ("limits.reservations_per_tenant", "BURSAR_LIMITS_RESERVATIONS_PER_TENANT", "200000"),
    ("limits.stored_bytes_per_day", "BURSAR_LIMITS_STORED_BYTES_PER_DAY", "0"),
    ("credentials.env_prefixes", "BURSAR_CREDENTIALS_ENV_PREFIXES", "CUS_CRED_,LLM_API_KEY_"),
    ("credentials.file_prefixes", "BURSAR_CREDENTIALS_FILE_PREFIXES", ""),
];

#[test]
fn known_settings_keep_their_key_variable_and_default() {
    let settings = settings();
    for (key, env, default) in KNOWN {
        let found = settings.iter().find(|setting| setting.key == *key);
        let setting = found.unwrap_or_else(|| panic!("{key} is gone"));
        assert_eq!((setting.env().as_str(), setting.default_text().as_str()), (*env, *default));
    }
}

#[test]
fn settings_have_different_variables() {
    let mut names: Vec<String> = settings().iter().map(|setting| setting.env()).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
