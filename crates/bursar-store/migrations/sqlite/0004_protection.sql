-- What protection did to requests, and what it was told to do otherwise for a tenant.
--
-- Signals are not part of the ledger: bounded for each tenant, the oldest go, and equal ones of a
-- minute share a row. dimension 1: rate, 2: burst, 3: cost, 4: anomaly; action 1: warn, 2: throttle,
-- 3: reject. endpoint is a route's template, operation its method.
create table signals (
    tenant_id integer not null,
    signal_id integer not null,
    dimension integer not null,
    action integer not null,
    endpoint text not null,
    operation text not null,
    retry_after_ms integer not null,
    current_value integer not null,
    allowed_value integer not null,
    times integer not null,
    first_at integer not null,
    last_at integer not null,
    primary key (tenant_id, signal_id)
) without rowid;

-- The one threshold that a tenant has instead of the configured one, until it expires. Earlier ones
-- are in the audit log.
create table protection_overrides (
    tenant_id integer not null references tenants,
    dimension integer not null,
    allowed_value integer not null,
    expires_at integer not null,
    reason text not null,
    created_at integer not null,
    created_by text not null,
    primary key (tenant_id, dimension)
) without rowid;
