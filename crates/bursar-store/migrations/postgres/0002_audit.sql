-- The audit log becomes a chain: each row of a tenant has a number, the hash of the row before it and
-- its own (audit.rs says what it covers), and where the request came from. The rows of before stay as
-- they are: of no chain. A server of the version before still writes such rows.

alter table audit add column address text;
alter table audit add column sequence bigint;
alter table audit add column prev_hash bytea;
alter table audit add column hash bytea;

-- No two rows have the same place; and the chain is read in its order.
create unique index audit_chain on audit (tenant_id, sequence);
create index audit_unchained on audit (tenant_id, audit_id) where sequence is null;

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

alter table audit_heads alter column tenant_id set statistics 0;
alter table audit_heads enable row level security;
alter table audit_heads force row level security;
create policy of_tenant on audit_heads
    using (tenant_id = (select nullif(current_setting('bursar.tenant_id', true), '')::bigint));
