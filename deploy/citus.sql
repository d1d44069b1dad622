-- Distributes the tables of Bursar over the nodes of a Citus cluster, by tenant.
--
-- Run it once, as the role that owns the database and its tables, after `bursar db migrate` and
-- before the first server starts:
--
--     create extension citus;                                  -- as a superuser, before
--     select citus_set_coordinator_host('...');                 -- as a superuser, before
--     psql --set ON_ERROR_STOP=1 --file deploy/citus.sql postgres://owner@coordinator/bursar
--
-- Servers connect to the coordinator. If a later migration creates a table, its notes name the new
-- line of this file.

begin;

-- A foreign key alone does not make Citus manage a table that is not distributed yet.
set local citus.enable_local_reference_table_foreign_keys = off;

-- Every node has a copy, because the rows of every tenant refer to it.
select create_reference_table('tenants');

-- server, leases, clock, id_numbers and write_probe stay on the coordinator. The statements that
-- change leases and clock read the clock, which must happen once. Migrations change server together
-- with the schema.

-- Citus does not support a policy with a subquery. This one is equivalent, but is evaluated for each
-- row if no index is used.
alter policy of_tenant on integrations
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on keys
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on calls
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on reservations
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on usage_entries
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on counters
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on limit_sets
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on limits
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on limit_accounts
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on limit_seconds
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on limit_values
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on postings
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on open_reservations
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on stored_bytes
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on rate_slots
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on rollups
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on rollup_labels
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on rollup_label_counts
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on tag_names
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on audit
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on audit_heads
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on decisions
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on signals
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on protection_overrides
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);

-- Citus (on PostgreSQL 15 and later) cannot move a shard that is written to while row level security
-- applies to the owner too. It still applies to the role of the servers.
alter table integrations no force row level security;
alter table keys no force row level security;
alter table calls no force row level security;
alter table reservations no force row level security;
alter table usage_entries no force row level security;
alter table counters no force row level security;
alter table limit_sets no force row level security;
alter table limits no force row level security;
alter table limit_accounts no force row level security;
alter table limit_seconds no force row level security;
alter table limit_values no force row level security;
alter table postings no force row level security;
alter table open_reservations no force row level security;
alter table stored_bytes no force row level security;
alter table rate_slots no force row level security;
alter table rollups no force row level security;
alter table rollup_labels no force row level security;
alter table rollup_label_counts no force row level security;
alter table tag_names no force row level security;
alter table audit no force row level security;
alter table audit_heads no force row level security;
alter table decisions no force row level security;
alter table signals no force row level security;
alter table protection_overrides no force row level security;

-- All rows of a tenant are on one node, so that its transactions stay there.
select create_distributed_table('integrations', 'tenant_id');
select create_distributed_table('keys', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('calls', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('reservations', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('usage_entries', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('counters', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('limit_sets', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('limits', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('limit_accounts', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('limit_seconds', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('limit_values', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('postings', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('open_reservations', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('stored_bytes', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rate_slots', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rollups', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rollup_labels', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rollup_label_counts', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('tag_names', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('audit', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('audit_heads', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('decisions', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('signals', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('protection_overrides', 'tenant_id', colocate_with => 'integrations');

-- For every session of this database. The nodes get the settings of a transaction: its tenant, without
-- which they show no row, and the durability of its commit. `bursar db migrate` changes one shard
-- after the other.
do $$
declare setting text;
begin
    foreach setting in array array['citus.propagate_set_commands = local',
        'citus.multi_shard_modify_mode = sequential',
        'citus.enable_local_reference_table_foreign_keys = off']
    loop
        execute format('alter database %I set %s', current_database(), setting);
    end loop;
end $$;

commit;
