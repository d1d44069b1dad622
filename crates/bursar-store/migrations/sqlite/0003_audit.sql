-- The audit log becomes a chain: each row of a tenant has a number, the hash of the row before it and
-- its own (audit.rs says what it covers), and where the request came from. The rows of before stay as
-- they are: of no chain. A server of the version before still writes such rows.

alter table audit add column address text;
alter table audit add column sequence integer;
alter table audit add column prev_hash blob;
alter table audit add column hash blob;

-- No two rows have the same place; and the chain is read in its order.
create unique index audit_chain on audit (tenant_id, sequence);
create index audit_unchained on audit (tenant_id, audit_id) where sequence is null;

-- Each filter of the log has an index to walk from the newest row to the oldest.
create index audit_by_time on audit (tenant_id, at);
create index audit_by_actor on audit (tenant_id, actor_id, at);
create index audit_by_action on audit (tenant_id, action, at);
create index audit_by_target on audit (tenant_id, target_id, at);
drop index audit_by_tenant;

-- The end of each chain, sealed with a key that is not in the database: the rows alone could be written
-- anew by whoever can write here, or cut at their end.
create table audit_heads (
    tenant_id integer primary key,
    sequence integer not null,
    hash blob not null,
    seal blob not null
);
