-- The first schema. Every tenant table's key, unique index and foreign key starts with tenant_id, so
-- that the tables can be distributed by tenant; server, tenants, leases, clock, id_numbers and
-- write_probe are of no tenant. Amounts are nano-dollars, instants microseconds since 1970 (UTC), months, days and
-- quarter hours are counted from 1970; the codes of enums stand in codec.rs. Keys that are texts are compared byte
-- by byte, as the embedded store does.

create table server (
    name text primary key,
    value text not null
);

create table tenants (
    tenant_id bigint primary key,
    name text not null,
    lifecycle smallint not null,
    onboarding smallint not null,
    created_at bigint not null,
    updated_at bigint not null
);

-- Work that one node at a time does, and until when it has it.
create table leases (
    name text primary key,
    holder text not null,
    until_at bigint not null
);

-- Bursar's time beside the database's clock, as a server noted it a moment ago, and how often an
-- operator confirmed the clock. One row.
create table clock (
    name text primary key,
    now_at bigint not null,
    wall_at bigint not null,
    confirmations bigint not null
);

insert into clock (name, now_at, wall_at, confirmations) values ('clock', 0, 0, 0);

-- Where ids go on. Writers take them in runs, so that few transactions meet here.
create table id_numbers (
    name text primary key,
    next_number bigint not null
);

insert into id_numbers (name, next_number) values ('ids', 1);

-- Written only to learn whether the disk has room, while that is in doubt.
create table write_probe (
    filler text not null
);

create table integrations (
    tenant_id bigint not null constraint integrations_tenant references tenants,
    integration_id bigint not null,
    name text collate "C" not null,
    provider_type text not null,
    credential_ref text,
    config text not null,
    origin text,
    status smallint not null,
    health smallint not null,
    health_checked_at bigint,
    health_message text,
    default_model text,
    budget_limit_cents bigint not null constraint integrations_budget check (budget_limit_cents >= 0),
    token_limit_month bigint not null constraint integrations_tokens check (token_limit_month >= 0),
    rate_limit_rpm bigint not null constraint integrations_rate check (rate_limit_rpm >= 0),
    cost_basis smallint not null,
    created_at bigint not null,
    updated_at bigint not null,
    created_by text not null,
    deleted_at bigint,
    primary key (tenant_id, integration_id)
);

-- The name of a deleted integration is free again.
create unique index integrations_live_name on integrations (tenant_id, name) where deleted_at is null;
-- A page of those that are not deleted passes over none that are.
create index integrations_live on integrations (tenant_id, integration_id) where deleted_at is null;

-- How many a tenant has deleted is counted when it makes another.
create index integrations_deleted on integrations (tenant_id) where deleted_at is not null;

-- API keys of a tenant, and keys that are good for one integration only.
create table keys (
    tenant_id bigint not null constraint keys_tenant references tenants,
    key_id bigint not null,
    -- Null for an API key.
    integration_id bigint,
    name text,
    -- What an API key may do; what a key of an integration may do is the same for all of them.
    scopes text,
    secret_hash bytea not null,
    created_at bigint not null,
    created_by text not null,
    expires_at bigint,
    revoked_at bigint,
    last_used_at bigint,
    -- The key that took its place when it was rotated.
    replaced_by bigint,
    -- The first key of its line: limits on a key go on counting when it is rotated.
    account_key_id bigint not null,
    primary key (tenant_id, key_id),
    constraint keys_integration foreign key (tenant_id, integration_id) references integrations,
    constraint keys_kind check (integration_id is not null
        or (name is not null and scopes is not null))
);

-- The keys of a tenant itself or of one integration, as they are listed and counted.
create index keys_by_owner on keys (tenant_id, integration_id, key_id);

-- One row for every call id that was reserved or recorded: the dedupe key, and the entry it became.
-- Never moved with the months of the entries.
create table calls (
    tenant_id bigint not null,
    call_key uuid not null,
    entry_id bigint,
    primary key (tenant_id, call_key)
) with (fillfactor = 90);

-- The reservation of a call id, if it was ever reserved, with whatever became of it.
create table reservations (
    tenant_id bigint not null,
    call_key uuid not null,
    integration_id bigint not null,
    estimated_cost_nanos bigint not null,
    estimated_tokens bigint not null,
    ttl_seconds bigint not null,
    reserved_at bigint not null,
    expires_at bigint not null,
    ended_at bigint,
    state smallint not null,
    call_id text not null,
    model text,
    decision text,
    session_id text,
    agent_id text,
    -- A JSON object, or null for an empty one.
    tags text,
    account_key_id bigint,
    -- Where it is held beside its integration: a JSON array, or null for an empty one.
    postings text,
    limits_version bigint not null,
    primary key (tenant_id, call_key)
) with (fillfactor = 90);

-- The open reservations of an account, by expiry, and those of a tenant.
create index reservations_open on reservations (tenant_id, integration_id, expires_at) where state = 1;
create index reservations_due on reservations (tenant_id, expires_at) where state = 1;

-- The ledger. Rows are only ever added.
create table usage_entries (
    tenant_id bigint not null,
    entry_id bigint not null,
    integration_id bigint not null,
    occurred_at bigint not null,
    created_at bigint not null,
    corrects_entry_id bigint,
    tokens_in bigint not null,
    tokens_out bigint not null,
    tokens_cache_read bigint not null,
    tokens_cache_write bigint not null,
    tokens_cache_write_long bigint not null,
    tokens_audio_in bigint not null,
    tokens_image_in bigint not null,
    tokens_reasoning bigint not null,
    tokens_audio_out bigint not null,
    tokens_image_out bigint not null,
    cost_nanos bigint not null,
    reported_cost_nanos bigint,
    computed_cost_nanos bigint,
    price_version bigint,
    latency_ms bigint,
    key_id bigint,
    -- The key in whose accounts the call counts, and the version of the limits under which it does.
    account_key_id bigint,
    limits_version bigint not null,
    kind smallint not null,
    cost_source smallint not null,
    usage_status smallint not null,
    source smallint not null,
    policy_result smallint not null,
    call_id text not null,
    session_id text collate "C",
    agent_id text collate "C",
    provider text not null,
    model text collate "C" not null,
    response_model text,
    region text,
    provider_request_id text,
    service_tier text,
    error_code text,
    error_message text,
    metadata text,
    -- JSON objects, or null for empty ones.
    units text,
    tags text,
    -- The tags that count in rollups, a bit for each in the order of their names.
    counted_tags bigint not null,
    primary key (tenant_id, entry_id)
);

-- Each filter of the history has an index to walk from the newest entry to the oldest, so that a
-- page costs what it shows and not what it passes over. Those on rare things are partial.
create index usage_entries_by_time on usage_entries (tenant_id, integration_id, occurred_at, entry_id);
create index usage_entries_by_model on usage_entries (tenant_id, integration_id, model, occurred_at, entry_id);
create index usage_entries_by_agent on usage_entries (tenant_id, agent_id, occurred_at, entry_id)
    where agent_id is not null;
create index usage_entries_by_session on usage_entries (tenant_id, session_id, occurred_at, entry_id)
    where session_id is not null;
create index usage_entries_failed on usage_entries (tenant_id, occurred_at, entry_id)
    where error_code is not null;
create index usage_entries_not_allowed on usage_entries (tenant_id, policy_result, occurred_at, entry_id)
    where policy_result <> 1;

-- What limits look at: one row a scope and month. scope_kind 1 is an integration. Rows change with
-- every group, so pages keep room for their next versions.
create table counters (
    tenant_id bigint not null,
    scope_kind smallint not null,
    scope_id bigint not null,
    month integer not null,
    used_cost_nanos bigint not null,
    used_tokens bigint not null,
    used_calls bigint not null,
    held_cost_nanos bigint not null,
    held_tokens bigint not null,
    held_calls bigint not null,
    last_at bigint not null,
    primary key (tenant_id, scope_kind, scope_id, month)
) with (fillfactor = 50);

-- The version of a tenant's limits. Groups of commands share a lock on the row, and a change of a
-- limit, which advances the version, has it alone: each group counts under one set of limits.
create table limit_sets (
    tenant_id bigint primary key constraint limit_sets_tenant references tenants,
    version bigint not null
) with (fillfactor = 50);

-- Limits beside the three fields of an integration. scope 1: tenant, 2: integration, 3: model,
-- 4: agent, 5: session, 6: key, 7: tag, whose name is label_name. A null value stands for each value,
-- a null integration for all of them; in scope 2 for each. measure 1: cost, 2: tokens, 3: calls,
-- 4: open reservations; window_kind 1: minute, 2: hour, 3: day, 4: week, 5: month, 6: total.
create table limits (
    tenant_id bigint not null constraint limits_tenant references tenants,
    limit_id bigint not null,
    name text not null,
    scope smallint not null,
    label_name text,
    value text,
    integration_id bigint,
    measure smallint not null,
    window_kind smallint,
    time_zone text,
    starts_at bigint,
    amount bigint not null,
    override_amount bigint,
    override_until bigint,
    override_reason text,
    action smallint not null,
    warn_percents text not null,
    required smallint not null,
    enabled smallint not null,
    managed_by smallint not null,
    created_at bigint not null,
    updated_at bigint not null,
    created_by text not null,
    -- The version of the set from which on it counts.
    since_version bigint not null,
    primary key (tenant_id, limit_id)
);

-- What limits look at beside the counters of integrations: one row for a limit, or for each of its
-- values. A row has the sums of one period, the latest in which a call counted.
create table limit_accounts (
    tenant_id bigint not null,
    limit_id bigint not null,
    value text collate "C" not null,
    period_start bigint not null,
    used_cost_nanos bigint not null,
    used_tokens bigint not null,
    used_calls bigint not null,
    held_cost_nanos bigint not null,
    held_tokens bigint not null,
    held_calls bigint not null,
    last_at bigint not null,
    primary key (tenant_id, limit_id, value)
) with (fillfactor = 50);

-- The last 60 seconds of accounts whose window is a minute: at most 60 rows an account, addressed by
-- second % 60.
create table limit_seconds (
    tenant_id bigint not null,
    limit_id bigint not null,
    value text collate "C" not null,
    slot smallint not null,
    second bigint not null,
    used_cost_nanos bigint not null,
    used_tokens bigint not null,
    used_calls bigint not null,
    held_cost_nanos bigint not null,
    held_tokens bigint not null,
    held_calls bigint not null,
    primary key (tenant_id, limit_id, value, slot)
) with (fillfactor = 50);

-- How many values of a limit have an account in a period, the latest one.
create table limit_values (
    tenant_id bigint not null,
    limit_id bigint not null,
    period_start bigint not null,
    accounts bigint not null,
    primary key (tenant_id, limit_id)
) with (fillfactor = 50);

-- The open holds of limit accounts, so that due ones can be left out of their sums.
create table postings (
    tenant_id bigint not null,
    limit_id bigint not null,
    value text collate "C" not null,
    expires_at bigint not null,
    call_key uuid not null,
    period_start bigint not null,
    cost_nanos bigint not null,
    tokens bigint not null,
    primary key (tenant_id, call_key, limit_id, value)
) with (fillfactor = 90);

create index postings_by_account on postings (tenant_id, limit_id, value, expires_at);

-- How many reservations of a tenant are stored as open, those that are due and not removed included.
create table open_reservations (
    tenant_id bigint primary key,
    reservations bigint not null
) with (fillfactor = 50);

-- Bytes of records by the UTC day on which they were stored. By integration, so that groups of a
-- tenant that have nothing else in common do not meet here.
create table stored_bytes (
    tenant_id bigint not null,
    day integer not null,
    integration_id bigint not null,
    bytes bigint not null,
    primary key (tenant_id, day, integration_id)
) with (fillfactor = 50);

-- The calls of the last 60 seconds: at most 60 rows a scope, addressed by second % 60.
create table rate_slots (
    tenant_id bigint not null,
    scope_kind smallint not null,
    scope_id bigint not null,
    slot smallint not null,
    second bigint not null,
    calls bigint not null,
    primary key (tenant_id, scope_kind, scope_id, slot)
) with (fillfactor = 50);

-- What dashboards read. grain 1: quarter hours by model, 2: days by model and key, 3: days by
-- agent, 4: days by value of a tag. start counts quarter hours or days since 1970. provider and
-- label are a provider and a model, nothing and an agent, or a name and a value of a tag. key_id is
-- the key that wrote the calls of a day by model: 0 for none, -1 for the keys that have no row of
-- their own. latency_00 to latency_15 are the buckets of a fixed histogram, latency_max_ms is the
-- greatest latency and no sum.
create table rollups (
    tenant_id bigint not null,
    integration_id bigint not null,
    grain smallint not null,
    start integer not null,
    provider text collate "C" not null,
    label text collate "C" not null,
    key_id bigint not null,
    calls bigint not null,
    succeeded bigint not null,
    errors bigint not null,
    blocked bigint not null,
    cost_unknown bigint not null,
    tokens_in bigint not null,
    tokens_out bigint not null,
    cost_nanos bigint not null,
    latency_calls bigint not null,
    latency_sum_ms bigint not null,
    latency_00 bigint not null,
    latency_01 bigint not null,
    latency_02 bigint not null,
    latency_03 bigint not null,
    latency_04 bigint not null,
    latency_05 bigint not null,
    latency_06 bigint not null,
    latency_07 bigint not null,
    latency_08 bigint not null,
    latency_09 bigint not null,
    latency_10 bigint not null,
    latency_11 bigint not null,
    latency_12 bigint not null,
    latency_13 bigint not null,
    latency_14 bigint not null,
    latency_15 bigint not null,
    latency_max_ms bigint not null,
    status_final bigint not null,
    status_partial bigint not null,
    status_estimated bigint not null,
    status_missing bigint not null,
    cost_reported bigint not null,
    cost_computed bigint not null,
    cost_held bigint not null,
    tokens_cache_read bigint not null,
    tokens_cache_write bigint not null,
    tokens_cache_write_long bigint not null,
    tokens_audio_in bigint not null,
    tokens_image_in bigint not null,
    tokens_reasoning bigint not null,
    tokens_audio_out bigint not null,
    tokens_image_out bigint not null,
    primary key (tenant_id, integration_id, grain, start, provider, label, key_id)
) with (fillfactor = 70);

-- The list of days and integrations in its order, so that a page of it passes over what lies before.
-- The rest of the key is for lookups of one row: without statistics, the planner may prefer this index
-- to the primary key, and would read all rows of the day.
create index rollups_by_day on rollups (tenant_id, start, integration_id, provider, label, key_id)
    where grain = 2;

-- The models (kind 1), agents (kind 2) and values of tags (kind 3) that have rollups of their own;
-- others share one. provider is the provider of a model or the name of a tag.
create table rollup_labels (
    tenant_id bigint not null,
    kind smallint not null,
    provider text collate "C" not null,
    label text collate "C" not null,
    primary key (tenant_id, kind, provider, label)
);

-- How many of them there are, for values of each tag apart: whoever adds one has the row, so that two
-- nodes cannot both add the last.
create table rollup_label_counts (
    tenant_id bigint not null,
    kind smallint not null,
    tag text collate "C" not null,
    labels bigint not null,
    primary key (tenant_id, kind, tag)
);

-- The tag names whose usage has rollups.
create table tag_names (
    tenant_id bigint not null,
    name text collate "C" not null,
    primary key (tenant_id, name)
);

-- Decisions other than "allowed", so that someone can ask why. Not part of the ledger: bounded for
-- each tenant, the oldest go, and equal ones of a minute share a row. kind 1: check, 2: reservation.
create table decisions (
    tenant_id bigint not null,
    decision_id bigint not null,
    kind smallint not null,
    integration_id bigint,
    verdict text not null,
    code text not null,
    decision text not null,
    call_id text,
    estimated_cost_nanos bigint not null,
    estimated_tokens bigint not null,
    times bigint not null,
    first_at bigint not null,
    last_at bigint not null,
    primary key (tenant_id, decision_id)
);

-- What protection did to requests. Not part of the ledger: bounded for each tenant, the oldest go,
-- and equal ones of a minute share a row. dimension 1: rate, 2: burst, 3: cost, 4: anomaly;
-- action 1: warn, 2: throttle, 3: reject. endpoint is a route's template, operation its method.
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
    tenant_id bigint not null constraint protection_overrides_tenant references tenants,
    dimension smallint not null,
    allowed_value bigint not null,
    expires_at bigint not null,
    reason text not null,
    created_at bigint not null,
    created_by text not null,
    primary key (tenant_id, dimension)
);

-- The audit log is a chain: each row of a tenant has a number, the hash of the row before it and its own
-- (audit/chain.rs says what it covers).
create table audit (
    tenant_id bigint not null,
    audit_id bigint not null,
    at bigint not null,
    actor_type text not null,
    actor_id text not null,
    address text,
    action text not null,
    target_type text not null,
    target_id text not null,
    request_id text not null,
    detail text not null,
    sequence bigint not null,
    prev_hash bytea not null,
    hash bytea not null,
    primary key (tenant_id, audit_id)
);

-- No two rows have the same place; and the chain is read in its order.
create unique index audit_chain on audit (tenant_id, sequence);

-- Each filter of the log has an index to walk from the newest row to the oldest.
create index audit_by_time on audit (tenant_id, at, audit_id);
create index audit_by_actor on audit (tenant_id, actor_id, at, audit_id);
create index audit_by_action on audit (tenant_id, action, at, audit_id);
create index audit_by_target on audit (tenant_id, target_id, at, audit_id);

-- The end of each chain, sealed with a key that is not in the database: the rows alone could be written
-- anew by whoever can write here, or cut at their end. Whoever adds a row has the head until the end of
-- the transaction, so that no two nodes follow the same row.
create table audit_heads (
    tenant_id bigint not null primary key,
    sequence bigint not null,
    hash bytea not null,
    seal bytea not null
) with (fillfactor = 70);

-- The planner is told nothing of which tenants and integrations there are. What it knew would be as old
-- as the last look at the table, and of those that came since it would believe that they have one row:
-- then any index that begins with the tenant is as good as the right one. So it takes each for one of
-- 200 of a table that is as large as it is.
alter table integrations alter column tenant_id set statistics 0;
alter table keys alter column tenant_id set statistics 0, alter column integration_id set statistics 0;
alter table calls alter column tenant_id set statistics 0;
alter table reservations alter column tenant_id set statistics 0, alter column integration_id set statistics 0;
alter table usage_entries alter column tenant_id set statistics 0, alter column integration_id set statistics 0;
alter table counters alter column tenant_id set statistics 0, alter column scope_id set statistics 0;
alter table limit_sets alter column tenant_id set statistics 0;
alter table limits alter column tenant_id set statistics 0;
alter table limit_accounts alter column tenant_id set statistics 0, alter column limit_id set statistics 0;
alter table limit_seconds alter column tenant_id set statistics 0, alter column limit_id set statistics 0;
alter table limit_values alter column tenant_id set statistics 0, alter column limit_id set statistics 0;
alter table postings alter column tenant_id set statistics 0, alter column limit_id set statistics 0;
alter table open_reservations alter column tenant_id set statistics 0;
alter table stored_bytes alter column tenant_id set statistics 0, alter column integration_id set statistics 0;
alter table rate_slots alter column tenant_id set statistics 0, alter column scope_id set statistics 0;
alter table rollups alter column tenant_id set statistics 0, alter column integration_id set statistics 0;
alter table rollup_labels alter column tenant_id set statistics 0;
alter table tag_names alter column tenant_id set statistics 0;
alter table audit alter column tenant_id set statistics 0;
alter table audit_heads alter column tenant_id set statistics 0;
alter table decisions alter column tenant_id set statistics 0;
alter table signals alter column tenant_id set statistics 0;
alter table protection_overrides alter column tenant_id set statistics 0;

-- The second line behind the statements themselves: a transaction sees the rows of the tenant that it
-- names, and of nobody when it names none. Forced, so that it holds for the owner too.
alter table integrations enable row level security;
alter table integrations force row level security;
create policy of_tenant on integrations
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table keys enable row level security;
alter table keys force row level security;
create policy of_tenant on keys
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table calls enable row level security;
alter table calls force row level security;
create policy of_tenant on calls
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table reservations enable row level security;
alter table reservations force row level security;
create policy of_tenant on reservations
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table usage_entries enable row level security;
alter table usage_entries force row level security;
create policy of_tenant on usage_entries
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table counters enable row level security;
alter table counters force row level security;
create policy of_tenant on counters
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table limit_sets enable row level security;
alter table limit_sets force row level security;
create policy of_tenant on limit_sets
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table limits enable row level security;
alter table limits force row level security;
create policy of_tenant on limits
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table limit_accounts enable row level security;
alter table limit_accounts force row level security;
create policy of_tenant on limit_accounts
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table limit_seconds enable row level security;
alter table limit_seconds force row level security;
create policy of_tenant on limit_seconds
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table limit_values enable row level security;
alter table limit_values force row level security;
create policy of_tenant on limit_values
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table postings enable row level security;
alter table postings force row level security;
create policy of_tenant on postings
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table open_reservations enable row level security;
alter table open_reservations force row level security;
create policy of_tenant on open_reservations
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table stored_bytes enable row level security;
alter table stored_bytes force row level security;
create policy of_tenant on stored_bytes
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table rate_slots enable row level security;
alter table rate_slots force row level security;
create policy of_tenant on rate_slots
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table rollups enable row level security;
alter table rollups force row level security;
create policy of_tenant on rollups
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table rollup_labels enable row level security;
alter table rollup_labels force row level security;
create policy of_tenant on rollup_labels
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table rollup_label_counts enable row level security;
alter table rollup_label_counts force row level security;
create policy of_tenant on rollup_label_counts
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table tag_names enable row level security;
alter table tag_names force row level security;
create policy of_tenant on tag_names
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table audit enable row level security;
alter table audit force row level security;
create policy of_tenant on audit
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table audit_heads enable row level security;
alter table audit_heads force row level security;
create policy of_tenant on audit_heads
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table decisions enable row level security;
alter table decisions force row level security;
create policy of_tenant on decisions
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table signals enable row level security;
alter table signals force row level security;
create policy of_tenant on signals
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
alter table protection_overrides enable row level security;
alter table protection_overrides force row level security;
create policy of_tenant on protection_overrides
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
