-- Distributes the tables of Bursar over the nodes of a Citus cluster, by tenant.
--
-- Run it once, as the role that owns the tables, after `bursar db migrate` and before the first
-- server starts:
--
--     create extension citus;                                            -- as a superuser, before
--     psql --set ON_ERROR_STOP=1 --file deploy/citus.sql postgres://owner@coordinator/bursar
--     alter role <application> set citus.propagate_set_commands = 'local';   -- as a superuser
--
-- Servers connect to the coordinator. Without the last line the nodes do not hear which tenant a
-- transaction names, and show no row at all. A later migration that makes a table says in its notes
-- which line of this file is new.

begin;

-- Everyone's. The rows of each tenant refer to them, on whichever node those are.
select create_reference_table('server');
select create_reference_table('tenants');

-- leases, clock and id_numbers stay on the coordinator: what changes them reads its clock, which no
-- other copy may do again.

-- Citus takes no policy with a subquery. This says the same, read once a row where no index is used.
alter policy of_tenant on integrations
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on api_keys
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on integration_keys
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on calls
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on usage_entries
    using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
alter policy of_tenant on counters
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

-- All rows of a tenant lie on one node, so that its transactions stay there.
select create_distributed_table('integrations', 'tenant_id');
select create_distributed_table('api_keys', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('integration_keys', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('calls', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('usage_entries', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('counters', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('open_reservations', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('stored_bytes', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rate_slots', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rollups', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rollup_labels', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('rollup_label_counts', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('audit', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('audit_heads', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('decisions', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('signals', 'tenant_id', colocate_with => 'integrations');
select create_distributed_table('protection_overrides', 'tenant_id', colocate_with => 'integrations');

commit;
