//! Schemas and statements that keep the rule of tenants, and others that break it.

/// A schema that keeps the rule.
pub(crate) const SCHEMA: &str = "
    create table tenants (tenant_id bigint primary key, name text not null unique);
    create table integrations (
        tenant_id bigint not null references tenants,
        integration_id bigint not null,
        name text not null,
        deleted_at bigint,
        constraint integrations_pkey primary key (tenant_id, integration_id)
    );
    create unique index integrations_live_name on integrations (tenant_id, name)
        where deleted_at is null;
    create table calls (
        tenant_id bigint not null,
        call_key bytea not null,
        integration_id bigint,
        expires_at bigint,
        state smallint,
        primary key (tenant_id, call_key),
        foreign key (tenant_id, integration_id) references integrations
    );
    create index calls_due on calls (expires_at);
    alter table integrations enable row level security;
    alter table integrations force row level security;
    create policy integrations_of_tenant on integrations
        using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
    alter table calls enable row level security, force row level security;
    create policy calls_of_tenant on calls
        using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint)
        with check (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
";

/// Statements about one tenant of that schema, or about none.
pub(crate) const ONE_TENANT: &[&str] = &[
    "begin read only",
    "set local statement_timeout = '5s'",
    "begin; set local statement_timeout = '5s'; set local jit = off",
    "select set_config('bursar.tenant_id', $1, true)",
    "select name from tenants",
    "select c.expires_at from calls c where c.tenant_id = $1 and c.call_key = any($2)",
    "select call_key from calls where (tenant_id, integration_id) = ($1::bigint, $2) for update",
    "select i.name from calls c join integrations i on i.tenant_id = c.tenant_id \
         and i.integration_id = c.integration_id where c.tenant_id = $1 order by i.name limit 5",
    "select i.name from integrations i left join calls c on c.tenant_id = i.tenant_id \
         where i.tenant_id = $1",
    "select t.name from tenants t where exists (select 1 from calls where tenant_id = $1)",
    "select walk.call_key from (select * from calls where tenant_id = $1 limit 9) walk",
    "select key, late.expires_at from unnest($2::bytea[]) as wanted(key) cross join lateral \
         (select expires_at from calls where tenant_id = $1 and call_key = wanted.key) late",
    "insert into calls (tenant_id, call_key, state) \
         values ($1, unnest($2), unnest($3::smallint[])) on conflict do nothing returning call_key",
    "insert into calls (tenant_id, call_key, state) values ($1, $2, coalesce($3, 1))",
    "insert into calls (tenant_id, call_key) values ($1, $2), ($1, $3) \
         on conflict (tenant_id, call_key) do update set expires_at = excluded.expires_at",
    "insert into tenants (tenant_id, name) select $1, $2",
    "insert into leases (name, until_at) values ($1, now()) \
         on conflict (name) do update set until_at = clock_timestamp()",
    "update calls set expires_at = u.at from unnest($2::bytea[], $3::bigint[]) as u(key, at) \
         where calls.tenant_id = $1 and calls.call_key = u.key",
    "delete from calls where tenant_id = $1 and call_key = any($2)",
    "with gone as (delete from calls where tenant_id = $1 returning tenant_id, integration_id) \
         select i.name from gone join integrations i \
         on i.tenant_id = $1 and i.integration_id = gone.integration_id",
    "with recursive walk as (select tenant_id, min(call_key) as at from calls \
         where tenant_id = $1 group by tenant_id union all \
         select walk.tenant_id, c.call_key from walk join calls c on c.tenant_id = $1 \
         and c.call_key > walk.at) select at from walk",
    "select call_key from calls where tenant_id = $1 union all \
         select call_key from calls where tenant_id = $1",
];

const UNBOUND: &str = "is not bound to one tenant";
const SEVERAL: &str = "names several tenants";

/// Statements that break the rule, each with a part of its fault.
pub(crate) const BROKEN_STATEMENTS: &[(&str, &str)] = &[
    ("select 1 from calls", UNBOUND),
    ("select 1 from calls where call_key = $1", UNBOUND),
    ("select 1 from calls where tenant_id <> $1", UNBOUND),
    ("select 1 from calls where tenant_id = 7", UNBOUND),
    ("select 1 from calls where tenant_id = any($1)", UNBOUND),
    ("select 1 from calls where tenant_id in ($1, $2)", UNBOUND),
    ("select 1 from calls where tenant_id::text = $1", UNBOUND),
    ("select 1 from calls where tenant_id = $1 or call_key = $2", UNBOUND),
    ("select 1 from calls where not (tenant_id = $1)", UNBOUND),
    ("select 1 from calls c, integrations i where c.tenant_id = $1", UNBOUND),
    (
        "select 1 from calls c join integrations i on i.integration_id = c.integration_id \
             where c.tenant_id = $1",
        "integrations as i is not bound",
    ),
    (
        "select 1 from calls c left join integrations i on c.tenant_id = $1",
        "calls as c is not bound",
    ),
    (
        "select 1 from integrations i right join calls c on c.tenant_id = i.tenant_id \
             and c.tenant_id = $1",
        "calls as c is not bound",
    ),
    (
        "select 1 from calls c full join integrations i on c.tenant_id = i.tenant_id \
             and i.tenant_id = $1",
        UNBOUND,
    ),
    ("select 1 from calls natural join integrations where tenant_id = $1", "join with on"),
    (
        "select 1 from calls c join integrations i on i.tenant_id = $2 where c.tenant_id = $1",
        SEVERAL,
    ),
    (
        "select 1 from calls where tenant_id = $1 and integration_id in \
             (select integration_id from integrations)",
        "integrations as integrations is not bound",
    ),
    ("select (select count(*) from calls) from tenants", UNBOUND),
    ("select 1 from tenants order by (select count(*) from calls)", UNBOUND),
    ("select 1 from tenants limit (select count(*) from calls)", UNBOUND),
    (
        "select t.name, (select count(*) from calls c where c.tenant_id = t.tenant_id) \
             from tenants t",
        UNBOUND,
    ),
    ("select 1 from (select * from calls) c where c.tenant_id = $1", UNBOUND),
    ("with c as (select * from calls) select 1 from c where tenant_id = $1", UNBOUND),
    (
        "select 1 from tenants t left join lateral (select 1 from calls c \
             where c.tenant_id = t.tenant_id) x on true",
        UNBOUND,
    ),
    ("select 1 from calls where tenant_id = $1 union all select 1 from calls", UNBOUND),
    ("table calls", "cannot be read"),
    ("insert into calls values ($1, $2)", UNBOUND),
    ("insert into calls (call_key) values ($1)", UNBOUND),
    ("insert into calls (tenant_id, call_key) values ($1, $2), ($3, $4)", UNBOUND),
    (
        "insert into calls (tenant_id, call_key) \
             select t, k from unnest($1::bigint[], $2::bytea[]) as u(t, k)",
        UNBOUND,
    ),
    ("insert into calls (call_key, tenant_id) select $1, key from unnest($2) as u(key)", UNBOUND),
    (
        "insert into calls (tenant_id, call_key) values ($1, $2) \
             on conflict (call_key, tenant_id) do nothing",
        "on conflict does not start",
    ),
    (
        "insert into calls (tenant_id, call_key) values ($1, $2) \
             on conflict (tenant_id, call_key) do update set tenant_id = $3",
        "changes tenant_id",
    ),
    ("update calls set expires_at = 1", UNBOUND),
    ("update calls set tenant_id = $2 where tenant_id = $1", "changes tenant_id"),
    (
        "update calls set expires_at = 1 from integrations i where calls.tenant_id = $1 \
             and i.integration_id = calls.integration_id",
        "integrations as i is not bound",
    ),
    ("delete from calls where call_key = $1", UNBOUND),
    ("delete from calls using integrations i where calls.tenant_id = $1", UNBOUND),
    ("with x as (delete from calls returning 1) select 1", UNBOUND),
    (
        "select t.name, (select count(*) from calls c where c.tenant_id = t.tenant_id) \
             from tenants t where t.tenant_id = $1",
        UNBOUND,
    ),
    (
        "select 1 from calls c join tenants t on t.tenant_id = c.tenant_id where t.tenant_id = $1",
        UNBOUND,
    ),
    (
        "select 1 from integrations i where i.tenant_id = $1 and exists \
             (select from calls c where c.tenant_id = i.tenant_id)",
        "calls as c is not bound",
    ),
    (
        "with gone as (delete from calls where tenant_id = $1 returning tenant_id) \
             select i.name from gone join integrations i on i.tenant_id = gone.tenant_id",
        "integrations as i is not bound",
    ),
    ("select 1 from calls c (a, b) where c.a = $1", "cannot be judged"),
    (
        "insert into calls (tenant_id, call_key) select $1, key from unnest($2::bytea[]) as u(key)",
        "what it selects, and not values",
    ),
    ("insert into calls (tenant_id, call_key) select $1, $2", "what it selects, and not values"),
    (
        "insert into integrations (tenant_id, integration_id, name) select tenant_id, $2, name \
             from integrations where tenant_id = $1 and integration_id = $3",
        "what it selects, and not values",
    ),
    (
        "insert into calls (tenant_id, call_key, state) values ($1, unnest($2), unnest($3))",
        "calls.state takes None, not Some(\"smallint[]\")",
    ),
    (
        "insert into calls (tenant_id, call_key, state) \
             values ($1, unnest($2), unnest($3::integer[]))",
        "calls.state takes Some(\"integer[]\"), not Some(\"smallint[]\")",
    ),
    (
        "insert into calls (tenant_id, call_key, state) \
             values ($1, unnest($2), unnest($3)::smallint)",
        "computes with unnest for calls.state",
    ),
    (
        "insert into calls (tenant_id, call_key) values ($1, unnest(array[$2, $3]))",
        "computes what unnest takes",
    ),
    ("insert into calls (tenant_id, call_key) values ($1, gen_random_uuid())", "calls gen_random"),
    (
        "insert into calls (tenant_id, call_key, expires_at) values ($1, $2, \
             (extract(epoch from clock_timestamp()) * 1000000)::bigint)",
        "calls clock_timestamp",
    ),
    (
        "insert into calls (tenant_id, call_key) values ($1, $2) on conflict (tenant_id, call_key) \
             do update set expires_at = random()",
        "calls random",
    ),
    ("update calls set expires_at = txid_current() where tenant_id = $1", "calls txid_current"),
    (
        "delete from calls where tenant_id = $1 and call_key in \
             (select key from keys_of(current_user) as k(key))",
        "calls keys_of",
    ),
    (
        "with gone as (delete from calls where tenant_id = $1 and expires_at < now() returning 1) \
             select count(*) from gone",
        "calls now",
    ),
    ("update tenants set name = current_timestamp where tenant_id = $1", "calls current_timestamp"),
    (
        "update tenants set name = $2::timestamptz::text where tenant_id = $1",
        "casts to timestamptz",
    ),
    (
        "select 1 from calls c cross join leases where c.tenant_id = $1",
        "meets {\"leases\"} of the coordinator",
    ),
    (
        "update calls set expires_at = (select until_at from leases) where tenant_id = $1",
        "meets {\"leases\"} of the coordinator",
    ),
    ("set local jit = off; select 1 from tenants", "a setting travels with a query"),
    (
        "begin; set local jit = off; update tenants set name = $2 where tenant_id = $1",
        "a setting travels with a query",
    ),
    ("truncate calls", "cannot be judged"),
    ("lock table calls in share mode", "cannot be judged"),
    ("copy calls from stdin", "cannot be judged"),
    ("select 1 from calls where tenant_id = = $1", "cannot be read"),
];

/// Additions to the schema that break the rule, each with a part of its fault.
pub(crate) const BROKEN_SCHEMAS: &[(&str, &str)] = &[
    ("create table t (a int primary key)", "has no column tenant_id"),
    ("create table t (tenant_id bigint, a int)", "no primary key"),
    ("create table t (tenant_id bigint, a int primary key)", "primary key does not start"),
    (
        "create table t (tenant_id bigint, a int, primary key (a, tenant_id))",
        "primary key does not start",
    ),
    (
        "create table t (tenant_id bigint primary key, a int unique)",
        "unique constraint does not start",
    ),
    (
        "create table t (tenant_id bigint primary key, a int, unique (a))",
        "unique constraint does not start",
    ),
    (
        "create table t (tenant_id bigint primary key, a int references calls)",
        "foreign key to calls does not start",
    ),
    (
        "create table t (tenant_id bigint primary key, a int, foreign key (a) references calls)",
        "foreign key to calls does not start",
    ),
    (
        "create table t (tenant_id bigint primary key, b int, \
         foreign key (tenant_id, b) references calls (call_key, tenant_id))",
        "refers to in calls does not start",
    ),
    ("alter table calls add constraint c exclude (call_key with =)", "cannot be judged"),
    ("alter table calls add constraint c unique (call_key)", "unique constraint does not start"),
    ("alter table calls add column a int unique", "unique constraint does not start"),
    ("alter table calls add constraint c primary key using index i", "cannot be judged"),
    ("create unique index on calls (call_key)", "unique index does not start"),
    ("create unique index on calls ((tenant_id + 1))", "unique index does not start"),
    ("alter table calls disable row level security", "cannot be judged"),
    ("alter table calls no force row level security", "cannot be judged"),
    ("create table copies as select * from calls", "is made from another table"),
    ("create table copies (like calls)", "is made from another table"),
    ("create table part partition of calls for values in (1)", "is made from another table"),
    ("drop table calls", "cannot be judged"),
    ("drop policy calls_of_tenant on calls", "cannot be judged"),
    ("create function f() returns int language sql as 'select 1 from calls'", "cannot be judged"),
    ("create view v as select * from calls", "cannot be judged"),
    ("insert into calls (tenant_id, call_key) values (1, 'a')", "cannot be judged"),
    ("create policy all_see on calls using (true)", "all_see does not compare tenant_id"),
    (
        "create policy some on calls using (tenant_id = current_setting('other')::bigint)",
        "some does not compare tenant_id",
    ),
    (
        "create policy some on calls using \
         (tenant_id = current_setting('bursar.tenant_id')::bigint or expires_at = 1)",
        "some does not compare tenant_id",
    ),
    (
        "create policy one on calls for select using \
         (tenant_id = current_setting('bursar.tenant_id')::bigint)",
        "one is not for all commands",
    ),
];
