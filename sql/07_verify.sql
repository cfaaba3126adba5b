-- What is in place, and what is wrong with it. Reads only; each result has a column "warning", empty when all is well.
--
-- Settings: cdc.publication  name of the publication  wells
-- Run:      psql -f 07_verify.sql

-- The server
SELECT current_setting('server_version') AS server_version,
       current_setting('wal_level') AS wal_level,
       current_setting('max_replication_slots') AS max_replication_slots,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots_in_use,
       concat_ws(' ',
           CASE WHEN current_setting('wal_level') <> 'logical'
                THEN 'ALTER SYSTEM SET wal_level = ''logical''; then restart the server.' END,
           CASE WHEN pg_catalog.to_regclass('cdc.slots') IS NULL
                THEN 'The schema cdc is missing: run 01_schema.sql.' END,
           CASE WHEN (SELECT count(*) FROM pg_catalog.pg_replication_slots)
                     >= current_setting('max_replication_slots')::int
                THEN 'No slot is left: drop one that nobody reads, or raise max_replication_slots.' END) AS warning;

-- The publication and its operations
SELECT wanted.name AS publication, p.puballtables AS all_tables,
       p.pubinsert AS "insert", p.pubupdate AS "update", p.pubdelete AS "delete", p.pubtruncate AS "truncate",
       p.pubviaroot AS via_partition_root,
       (SELECT count(*) FROM pg_catalog.pg_publication_tables t WHERE t.pubname = wanted.name) AS tables,
       CASE WHEN p.pubname IS NULL THEN 'It does not exist: run 03_publication_table.sql.'
            WHEN NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate)
            THEN 'Operations are missing, so no cache can be kept: ALTER PUBLICATION … SET (publish = ''insert, update, delete, truncate'').'
       END AS warning
FROM (SELECT coalesce(nullif(current_setting('cdc.publication', true), ''), 'wells') AS name) AS wanted
LEFT JOIN pg_catalog.pg_publication p ON p.pubname = wanted.name;

-- The published tables: replica identity
SELECT t.schemaname AS schema, t.tablename AS "table", c.relkind = 'p' AS partitioned,
       CASE c.relreplident WHEN 'd' THEN CASE WHEN k.indexrelid IS NULL THEN 'default, no primary key' ELSE 'primary key' END
                           WHEN 'f' THEN 'full' WHEN 'i' THEN 'index' ELSE 'nothing' END AS replica_identity,
       CASE WHEN c.relkind = 'r' AND (c.relreplident = 'n' OR c.relreplident = 'd' AND k.indexrelid IS NULL)
            THEN format('UPDATE and DELETE fail for whoever writes it: ALTER TABLE %I.%I REPLICA IDENTITY FULL;',
                        t.schemaname, t.tablename)
       END AS warning
FROM pg_catalog.pg_publication_tables t
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
LEFT JOIN pg_catalog.pg_index k ON k.indrelid = c.oid AND k.indisprimary AND k.indimmediate
WHERE t.pubname = coalesce(nullif(current_setting('cdc.publication', true), ''), 'wells')
ORDER BY 1, 2;

-- The published tables: row-level security
SELECT t.schemaname AS schema, t.tablename AS "table", c.relrowsecurity AS row_security, c.relforcerowsecurity AS forced,
       s.reading, s.inserting, s.policies,
       CASE WHEN NOT c.relrowsecurity AND s.policies > 0
            THEN format('Its policies do nothing: ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY;', t.schemaname, t.tablename)
            WHEN c.relrowsecurity AND s.policies = 0 THEN 'No policy: nobody but the owner sees a row.'
            WHEN c.relrowsecurity AND s.reading > 0 AND s.inserting = 0
            THEN 'SELECT policies only: nobody but the owner can insert a row, so ingestion breaks. Run 05_row_level_security.sql.'
       END AS warning
FROM pg_catalog.pg_publication_tables t
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
CROSS JOIN LATERAL (
    SELECT count(*) AS policies,
           count(*) FILTER (WHERE polpermissive AND polcmd IN ('r', '*')) AS reading,
           count(*) FILTER (WHERE polpermissive AND polcmd IN ('a', '*')) AS inserting
    FROM pg_catalog.pg_policy WHERE polrelid = c.oid
) AS s
WHERE t.pubname = coalesce(nullif(current_setting('cdc.publication', true), ''), 'wells')
ORDER BY 1, 2;

-- Their policies
SELECT p.schemaname AS schema, p.tablename AS "table", p.policyname AS policy, p.permissive, p.cmd AS operation,
       p.roles, p.qual AS "using", p.with_check
FROM pg_catalog.pg_policies p
JOIN pg_catalog.pg_publication_tables t ON t.schemaname = p.schemaname AND t.tablename = p.tablename
WHERE t.pubname = coalesce(nullif(current_setting('cdc.publication', true), ''), 'wells')
ORDER BY 1, 2, 3;

-- Rights in the stream: the table cdc.rights and what fills it
SELECT wanted.name AS publication, c.oid IS NOT NULL AS "table", o.rolname AS owner, p.tablename IS NOT NULL AS published,
       t.triggers,
       CASE WHEN c.oid IS NULL THEN 'Rights are the newest ones, not those of a change''s time: run 10_rights.sql as a superuser.'
            WHEN NOT o.rolsuper THEN 'Its owner is no superuser, so it is not used: DROP TABLE cdc.rights; then run 10_rights.sql.'
            WHEN t.triggers < 2 THEN 'An event trigger is missing or disabled, so it is not used: run 10_rights.sql, or ALTER EVENT TRIGGER … ENABLE;'
            WHEN p.tablename IS NULL THEN format('It is not published, so it is not used: ALTER PUBLICATION %I ADD TABLE cdc.rights;', wanted.name)
       END AS warning
FROM (SELECT coalesce(nullif(current_setting('cdc.publication', true), ''), 'wells') AS name) AS wanted
LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass('cdc.rights')
LEFT JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
LEFT JOIN pg_catalog.pg_publication_tables p
    ON p.pubname = wanted.name AND p.schemaname = 'cdc' AND p.tablename = 'rights'
CROSS JOIN LATERAL (SELECT count(*) AS triggers FROM pg_catalog.pg_event_trigger
                    WHERE evtname IN ('cdc_rights', 'cdc_rights_dropped') AND evtenabled IN ('O', 'A')) AS t;

-- Rewrites in the stream: the table cdc.rewrites and what fills it
SELECT wanted.name AS publication, c.oid IS NOT NULL AS "table", p.tablename IS NOT NULL AS published, t.triggers,
       CASE WHEN c.oid IS NULL THEN 'Caches do not notice DDL that changes rows: run 20_rewrites.sql as a superuser.'
            WHEN t.triggers < 3 THEN 'An event trigger is missing or disabled: run 20_rewrites.sql, or ALTER EVENT TRIGGER … ENABLE;'
            WHEN p.tablename IS NULL THEN format('It is not published: ALTER PUBLICATION %I ADD TABLE cdc.rewrites;', wanted.name)
       END AS warning
FROM (SELECT coalesce(nullif(current_setting('cdc.publication', true), ''), 'wells') AS name) AS wanted
LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass('cdc.rewrites')
LEFT JOIN pg_catalog.pg_publication_tables p
    ON p.pubname = wanted.name AND p.schemaname = 'cdc' AND p.tablename = 'rewrites'
CROSS JOIN LATERAL (SELECT count(*) AS triggers FROM pg_catalog.pg_event_trigger
                    WHERE evtname IN ('cdc_rewrites', 'cdc_rewrites_altered', 'cdc_rewrites_dropped')
                      AND evtenabled IN ('O', 'A')) AS t;

-- The slots of this database
SELECT slot_name, plugin, temporary, active_pid, confirmed_flush_lsn, wal_status,
       pg_size_pretty(lag.bytes) AS lag, pg_size_pretty(safe_wal_size) AS safe_wal_size,
       CASE WHEN wal_status = 'lost' THEN format('It is lost, and changes with it: cdc drop --slot %s', slot_name)
            WHEN wal_status = 'unreserved' THEN 'It is about to be lost: start its consumer.'
            WHEN NOT active AND lag.bytes > 1073741824
            THEN format('Nobody reads it and WAL piles up: start its consumer, or cdc drop --slot %s', slot_name)
       END AS warning
FROM pg_catalog.pg_replication_slots
CROSS JOIN LATERAL (
    SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                           confirmed_flush_lsn) AS bytes
) AS lag
WHERE database = current_database()
ORDER BY slot_name;

-- What the consumer keeps of them, when the schema cdc exists
DO $cdc$
DECLARE
    kept record;
BEGIN
    IF pg_catalog.to_regclass('cdc.slots') IS NULL THEN
        RAISE INFO 'cdc.slots does not exist';
        RETURN;
    END IF;
    FOR kept IN
        SELECT k.*, s.slot_name IS NULL AS missing
        FROM cdc.slots k LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = k.slot ORDER BY k.slot
    LOOP
        RAISE INFO 'cdc.slots: slot %, position %, flush %, saved %', kept.slot,
            concat_ws(':', kept.epoch, kept.commit_lsn, kept.ordinal), coalesce(kept.flush_lsn::text, 'none'),
            concat(kept.saved_at, CASE WHEN kept.missing THEN '; warning: the slot itself does not exist' END);
    END LOOP;
END
$cdc$;
