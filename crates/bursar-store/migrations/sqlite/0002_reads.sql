-- What operators and tenants ask most: history by a filter, and why a call was not admitted.
--
-- Each filter of the history has an index to walk, so that a page costs what it shows and not what
-- it passes over. Those on rare things are partial. Together they cost about a fifth of the records
-- a second that one connection can write; a page that reads millions of rows would cost more.

create index usage_entries_by_model on usage_entries (tenant_id, integration_id, model, occurred_at);
create index usage_entries_by_agent on usage_entries (tenant_id, agent_id, occurred_at)
    where agent_id is not null;
create index usage_entries_by_session on usage_entries (tenant_id, session_id, occurred_at)
    where session_id is not null;
create index usage_entries_failed on usage_entries (tenant_id, occurred_at)
    where error_code is not null;
create index usage_entries_not_allowed on usage_entries (tenant_id, policy_result, occurred_at)
    where policy_result <> 1;

-- The list of days and integrations in its order, so that a page of it passes over what lies before.
create index rollups_by_day on rollups (tenant_id, start, integration_id) where grain = 2;

-- Integrations that are not deleted, so that a page passes over none that are.
create index integrations_live on integrations (tenant_id, integration_id) where deleted_at is null;

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
