-- The first schema. Every tenant table's key starts with tenant_id, as in the layout that can be
-- distributed by tenant, except where SQLite's row id serves as the key. Amounts are nano-dollars, instants microseconds since 1970 (UTC), months,
-- days and quarter hours are counted from 1970; the codes of enums stand in codec.rs.

create table server (
    name text primary key,
    value text not null
) without rowid;

-- Bursar's time beside the wall clock, noted while they are apart, and until when stored instants
-- may be of a time that an operator took back. One row.
create table clock (
    name text primary key,
    now_at integer not null,
    wall_at integer not null,
    taken_back_until integer
) without rowid;

insert into clock (name, now_at, wall_at, taken_back_until) values ('clock', 0, 0, null);

-- Written only to learn whether the disk has room, while that is in doubt. At most one row.
create table write_probe (
    id integer primary key,
    filler blob not null
);

create table tenants (
    tenant_id integer primary key,
    name text not null,
    lifecycle integer not null,
    onboarding integer not null,
    created_at integer not null,
    updated_at integer not null
);

create table integrations (
    tenant_id integer not null constraint integrations_tenant references tenants,
    integration_id integer not null,
    name text not null,
    provider_type text not null,
    credential_ref text,
    config text not null,
    origin text,
    status integer not null,
    health integer not null,
    health_checked_at integer,
    health_message text,
    default_model text,
    budget_limit_cents integer not null constraint integrations_budget check (budget_limit_cents >= 0),
    token_limit_month integer not null constraint integrations_tokens check (token_limit_month >= 0),
    rate_limit_rpm integer not null constraint integrations_rate check (rate_limit_rpm >= 0),
    cost_basis integer not null,
    created_at integer not null,
    updated_at integer not null,
    created_by text not null,
    deleted_at integer,
    primary key (tenant_id, integration_id)
) without rowid;

-- The name of a deleted integration is free again.
create unique index integrations_live_name on integrations (tenant_id, name) where deleted_at is null;

-- A page of those that are not deleted passes over none that are.
create index integrations_live on integrations (tenant_id, integration_id) where deleted_at is null;

-- How many a tenant has deleted is counted when it makes another.
create index integrations_deleted on integrations (tenant_id) where deleted_at is not null;

-- API keys of a tenant, and keys that are good for one integration only.
create table keys (
    tenant_id integer not null constraint keys_tenant references tenants,
    key_id integer not null,
    -- Null for an API key.
    integration_id integer,
    name text,
    -- What an API key may do; what a key of an integration may do is the same for all of them.
    scopes text,
    secret_hash blob not null,
    created_at integer not null,
    created_by text not null,
    expires_at integer,
    revoked_at integer,
    last_used_at integer,
    -- The key that took its place when it was rotated.
    replaced_by integer,
    -- The first key of its line: limits on a key go on counting when it is rotated.
    account_key_id integer not null,
    primary key (tenant_id, key_id),
    constraint keys_integration foreign key (tenant_id, integration_id) references integrations,
    constraint keys_kind check (integration_id is not null
        or (name is not null and scopes is not null))
) without rowid;

-- The keys of a tenant itself or of one integration, as they are listed and counted.
create index keys_by_owner on keys (tenant_id, integration_id, key_id);

-- One row for every call id that was reserved or recorded: the dedupe key, and the entry it became.
-- Never moved with the months of the entries.
create table calls (
    tenant_id integer not null,
    call_key blob not null,
    entry_id integer,
    primary key (tenant_id, call_key)
) without rowid;

-- The reservation of a call id, if it was ever reserved, with whatever became of it.
create table reservations (
    tenant_id integer not null,
    call_key blob not null,
    call_id text not null,
    integration_id integer not null,
    estimated_cost_nanos integer not null,
    estimated_tokens integer not null,
    model text,
    ttl_seconds integer not null,
    decision text,
    reserved_at integer not null,
    expires_at integer not null,
    state integer not null,
    ended_at integer,
    session_id text,
    agent_id text,
    -- A JSON object, or null for an empty one.
    tags text,
    account_key_id integer,
    -- Where it is held beside its integration: a JSON array, or null for an empty one.
    postings text,
    limits_version integer not null,
    primary key (tenant_id, call_key)
) without rowid;

-- The open reservations of an account with what memory keeps of them, and those of all that are due.
create index reservations_open on reservations (tenant_id, integration_id, expires_at, reserved_at,
    estimated_cost_nanos, estimated_tokens) where state = 1;
create index reservations_due on reservations (expires_at) where state = 1;

-- The ledger. Rows are only ever added.
create table usage_entries (
    entry_id integer primary key,
    tenant_id integer not null,
    integration_id integer not null,
    kind integer not null,
    corrects_entry_id integer,
    call_id text not null,
    session_id text,
    agent_id text,
    provider text not null,
    model text not null,
    response_model text,
    region text,
    provider_request_id text,
    service_tier text,
    tokens_in integer not null,
    tokens_out integer not null,
    tokens_cache_read integer not null,
    tokens_cache_write integer not null,
    tokens_cache_write_long integer not null,
    tokens_audio_in integer not null,
    tokens_image_in integer not null,
    tokens_reasoning integer not null,
    tokens_audio_out integer not null,
    tokens_image_out integer not null,
    -- JSON objects, or null for empty ones.
    units text,
    tags text,
    -- The tags that count in rollups, a bit for each in the order of their names.
    counted_tags integer not null,
    cost_nanos integer not null,
    cost_source integer not null,
    reported_cost_nanos integer,
    computed_cost_nanos integer,
    price_version integer,
    usage_status integer not null,
    source integer not null,
    key_id integer,
    -- The key in whose accounts the call counts, and the version of the limits under which it does.
    account_key_id integer,
    limits_version integer not null,
    latency_ms integer,
    policy_result integer not null,
    error_code text,
    error_message text,
    metadata text,
    occurred_at integer not null,
    created_at integer not null
);

-- Each filter of the history has an index to walk, so that a page costs what it shows and not what
-- it passes over. Those on rare things are partial. Together they cost about a fifth of the records
-- a second that one connection can write; a page that reads millions of rows would cost more.
create index usage_entries_by_time on usage_entries (tenant_id, integration_id, occurred_at);
create index usage_entries_by_model on usage_entries (tenant_id, integration_id, model, occurred_at);
create index usage_entries_by_agent on usage_entries (tenant_id, agent_id, occurred_at)
    where agent_id is not null;
create index usage_entries_by_session on usage_entries (tenant_id, session_id, occurred_at)
    where session_id is not null;
create index usage_entries_failed on usage_entries (tenant_id, occurred_at)
    where error_code is not null;
create index usage_entries_not_allowed on usage_entries (tenant_id, policy_result, occurred_at)
    where policy_result <> 1;

-- What limits look at: one row a scope and month. scope_kind 1 is an integration.
create table counters (
    tenant_id integer not null,
    scope_kind integer not null,
    scope_id integer not null,
    month integer not null,
    used_cost_nanos integer not null,
    used_tokens integer not null,
    used_calls integer not null,
    held_cost_nanos integer not null,
    held_tokens integer not null,
    held_calls integer not null,
    last_at integer not null,
    primary key (tenant_id, scope_kind, scope_id, month)
) without rowid;

-- The version of a tenant's limits, which each change of a limit advances.
create table limit_sets (
    tenant_id integer primary key constraint limit_sets_tenant references tenants,
    version integer not null
) strict;

-- Limits beside the three fields of an integration. scope 1: tenant, 2: integration, 3: model,
-- 4: agent, 5: session, 6: key, 7: tag, whose name is label_name. A null value stands for each value,
-- a null integration for all of them; in scope 2 for each. measure 1: cost, 2: tokens, 3: calls,
-- 4: open reservations; window_kind 1: minute, 2: hour, 3: day, 4: week, 5: month, 6: total.
create table limits (
    tenant_id integer not null constraint limits_tenant references tenants,
    limit_id integer not null,
    name text not null,
    scope integer not null,
    label_name text,
    value text,
    integration_id integer,
    measure integer not null,
    window_kind integer,
    time_zone text,
    starts_at integer,
    amount integer not null,
    override_amount integer,
    override_until integer,
    override_reason text,
    action integer not null,
    warn_percents text not null,
    required integer not null,
    enabled integer not null,
    managed_by integer not null,
    created_at integer not null,
    updated_at integer not null,
    created_by text not null,
    -- The version of the set from which on it counts.
    since_version integer not null,
    primary key (tenant_id, limit_id)
) without rowid, strict;

-- What limits look at beside the counters of integrations: one row for a limit, or for each of its
-- values. A row has the sums of one period, the latest in which a call counted.
create table limit_accounts (
    tenant_id integer not null,
    limit_id integer not null,
    value text not null,
    period_start integer not null,
    used_cost_nanos integer not null,
    used_tokens integer not null,
    used_calls integer not null,
    held_cost_nanos integer not null,
    held_tokens integer not null,
    held_calls integer not null,
    last_at integer not null,
    primary key (tenant_id, limit_id, value)
) without rowid, strict;

-- The last 60 seconds of accounts whose window is a minute: at most 60 rows an account, addressed by
-- second % 60.
create table limit_seconds (
    tenant_id integer not null,
    limit_id integer not null,
    value text not null,
    slot integer not null,
    second integer not null,
    used_cost_nanos integer not null,
    used_tokens integer not null,
    used_calls integer not null,
    held_cost_nanos integer not null,
    held_tokens integer not null,
    held_calls integer not null,
    primary key (tenant_id, limit_id, value, slot)
) without rowid, strict;

-- How many values of a limit have an account in a period, the latest one.
create table limit_values (
    tenant_id integer not null,
    limit_id integer not null,
    period_start integer not null,
    accounts integer not null,
    primary key (tenant_id, limit_id)
) without rowid, strict;

-- The open holds of limit accounts, so that due ones can be left out of their sums.
create table postings (
    tenant_id integer not null,
    limit_id integer not null,
    value text not null,
    expires_at integer not null,
    call_key blob not null,
    period_start integer not null,
    cost_nanos integer not null,
    tokens integer not null,
    primary key (tenant_id, limit_id, value, expires_at, call_key)
) without rowid, strict;

-- How many reservations of a tenant are stored as open, those that are due and not removed included.
create table open_reservations (
    tenant_id integer primary key,
    reservations integer not null
) strict;

-- Bytes of records by the UTC day on which they were stored. By integration, so that groups of a
-- tenant that have nothing else in common do not meet here.
create table stored_bytes (
    tenant_id integer not null,
    day integer not null,
    integration_id integer not null,
    bytes integer not null,
    primary key (tenant_id, day, integration_id)
) without rowid, strict;

-- The calls of the last 60 seconds: at most 60 rows a scope, addressed by second % 60.
create table rate_slots (
    tenant_id integer not null,
    scope_kind integer not null,
    scope_id integer not null,
    slot integer not null,
    second integer not null,
    calls integer not null,
    primary key (tenant_id, scope_kind, scope_id, slot)
) without rowid;

-- What dashboards read; strict, so that a sum that leaves 64 bits is refused and does not become a
-- number with a point. grain 1: quarter hours by model, 2: days by model and key, 3: days by agent,
-- 4: days by value of a tag. start counts quarter hours or days since 1970. provider and label are
-- a provider and a model, nothing and an agent, or a name and a value of a tag. key_id is the key
-- that wrote the calls of a day by model: 0 for none, -1 for the keys that have no row of their
-- own. latency_00 to latency_15 are the buckets of a fixed histogram, latency_max_ms is the
-- greatest latency and no sum.
create table rollups (
    tenant_id integer not null,
    integration_id integer not null,
    grain integer not null,
    start integer not null,
    provider text not null,
    label text not null,
    key_id integer not null,
    calls integer not null,
    succeeded integer not null,
    errors integer not null,
    blocked integer not null,
    cost_unknown integer not null,
    tokens_in integer not null,
    tokens_out integer not null,
    cost_nanos integer not null,
    latency_calls integer not null,
    latency_sum_ms integer not null,
    latency_00 integer not null,
    latency_01 integer not null,
    latency_02 integer not null,
    latency_03 integer not null,
    latency_04 integer not null,
    latency_05 integer not null,
    latency_06 integer not null,
    latency_07 integer not null,
    latency_08 integer not null,
    latency_09 integer not null,
    latency_10 integer not null,
    latency_11 integer not null,
    latency_12 integer not null,
    latency_13 integer not null,
    latency_14 integer not null,
    latency_15 integer not null,
    latency_max_ms integer not null,
    status_final integer not null,
    status_partial integer not null,
    status_estimated integer not null,
    status_missing integer not null,
    cost_reported integer not null,
    cost_computed integer not null,
    cost_held integer not null,
    tokens_cache_read integer not null,
    tokens_cache_write integer not null,
    tokens_cache_write_long integer not null,
    tokens_audio_in integer not null,
    tokens_image_in integer not null,
    tokens_reasoning integer not null,
    tokens_audio_out integer not null,
    tokens_image_out integer not null,
    primary key (tenant_id, integration_id, grain, start, provider, label, key_id)
) without rowid, strict;

-- The list of days and integrations in its order, so that a page of it passes over what lies before.
create index rollups_by_day on rollups (tenant_id, start, integration_id) where grain = 2;

-- The models (kind 1), agents (kind 2) and values of tags (kind 3) that have rollups of their own;
-- others share one. provider is the provider of a model or the name of a tag.
create table rollup_labels (
    tenant_id integer not null,
    kind integer not null,
    provider text not null,
    label text not null,
    primary key (tenant_id, kind, provider, label)
) without rowid;

-- The tag names whose usage has rollups.
create table tag_names (
    tenant_id integer not null,
    name text not null,
    primary key (tenant_id, name)
) without rowid;

-- Decisions other than "allowed", so that someone can ask why. Not part of the ledger: bounded for
-- each tenant, the oldest go, and equal ones of a minute share a row. kind 1: check, 2: reservation.
create table decisions (
    tenant_id integer not null,
    decision_id integer not null,
    kind integer not null,
    integration_id integer,
    verdict text not null,
    code text not null,
    decision text not null,
    call_id text,
    estimated_cost_nanos integer not null,
    estimated_tokens integer not null,
    times integer not null,
    first_at integer not null,
    last_at integer not null,
    primary key (tenant_id, decision_id)
) without rowid;

-- What protection did to requests. Not part of the ledger: bounded for each tenant, the oldest go,
-- and equal ones of a minute share a row. dimension 1: rate, 2: burst, 3: cost, 4: anomaly;
-- action 1: warn, 2: throttle, 3: reject. endpoint is a route's template, operation its method.
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
    tenant_id integer not null constraint protection_overrides_tenant references tenants,
    dimension integer not null,
    allowed_value integer not null,
    expires_at integer not null,
    reason text not null,
    created_at integer not null,
    created_by text not null,
    primary key (tenant_id, dimension)
) without rowid;

-- The audit log is a chain: each row of a tenant has a number, the hash of the row before it and its own
-- (audit/chain.rs says what it covers). Audit ids grow with time and are the newest ids of all, so the
-- largest one is where ids go on.
create table audit (
    audit_id integer primary key,
    tenant_id integer not null,
    at integer not null,
    actor_type text not null,
    actor_id text not null,
    address text,
    action text not null,
    target_type text not null,
    target_id text not null,
    request_id text not null,
    detail text not null,
    sequence integer not null,
    prev_hash blob not null,
    hash blob not null
);

-- No two rows have the same place; and the chain is read in its order.
create unique index audit_chain on audit (tenant_id, sequence);

-- Each filter of the log has an index to walk from the newest row to the oldest.
create index audit_by_time on audit (tenant_id, at);
create index audit_by_actor on audit (tenant_id, actor_id, at);
create index audit_by_action on audit (tenant_id, action, at);
create index audit_by_target on audit (tenant_id, target_id, at);

-- The end of each chain, sealed with a key that is not in the database: the rows alone could be written
-- anew by whoever can write here, or cut at their end.
create table audit_heads (
    tenant_id integer primary key,
    sequence integer not null,
    hash blob not null,
    seal blob not null
);
