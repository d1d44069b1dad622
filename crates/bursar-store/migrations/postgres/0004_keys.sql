-- Keys that are rotated: the old one names its successor and ends after an overlap, for which keys of
-- integrations get an end. A server of the version before does not know it and takes such a key for
-- as long as it runs beside this one; a key that is revoked at once it refuses.

alter table api_keys add column replaced_by bigint;
alter table integration_keys add column expires_at bigint;
alter table integration_keys add column replaced_by bigint;
