-- What protection did to requests, and what it was told to do otherwise for a tenant.
--
-- Signals are not part of the ledger: bounded for each tenant, the oldest go, and equal ones of a
-- minute share a row. dimension 1: rate, 2: burst, 3: cost, 4: anomaly; action 1: warn, 2: throttle,
-- 3: reject. endpoint is a route's template, operation its method.
create table signals (
    tenant_id bigint not null,
    signal_id bigint not null,
    dimension smallint not null,
    action smallint not null,
    endpoint text not null,
    operation text not null,
    retry_after_ms bigint not null,
    current_value bigint not null,
    allowed_value bigint not null,
    times bigint not null,
    first_at bigint not null,
    last_at bigint not null,
    primary key (tenant_id, signal_id)
);

-- The one threshold that a tenant has instead of the configured one, until it expires. Earlier ones
-- are in the audit log.
create table protection_overrides (
    tenant_id bigint not null references tenants,
    dimension smallint not null,
    allowed_value bigint not null,
    expires_at bigint not null,
    reason text not null,
    created_at bigint not null,
    created_by text not null,
    primary key (tenant_id, dimension)
);

-- As for every table of tenants, for the reasons that 0001_ledger.sql gives. On Citus both tables are
-- in deploy/citus.sql.
alter table signals alter column tenant_id set statistics 0;
alter table protection_overrides alter column tenant_id set statistics 0;

alter table signals enable row level security;
alter table signals force row level security;
create policy of_tenant on signals
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table protection_overrides enable row level security;
alter table protection_overrides force row level security;
create policy of_tenant on protection_overrides
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
