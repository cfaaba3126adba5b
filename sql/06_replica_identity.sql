-- REPLICA IDENTITY FULL for the named tables and their partitions: updates and deletes then carry the whole old row.
--
-- Needed where a policy or a filter looks at columns outside the key and deletes matter, and for tables without a
-- primary key. It costs WAL: every update writes the old row too. It takes a short exclusive lock on the table.
--
-- Settings: cdc.tables  comma-separated list; schema defaults to public  public.wells
-- Needs:    01_schema.sql.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -c "SET cdc.tables = 'wells'" -f 06_replica_identity.sql

DO $cdc$
DECLARE
    item record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE EXCEPTION 'the schema cdc is missing' USING HINT = 'Run 01_schema.sql first.', ERRCODE = 'undefined_table';
    END IF;
    FOR item IN
        WITH named AS (SELECT cdc.named_tables() AS relation),
             whole AS (SELECT relation FROM named
                       UNION SELECT part.relid FROM named, pg_partition_tree(named.relation) AS part)
        SELECT c.oid::regclass AS relation,
               CASE c.relreplident
                   WHEN 'n' THEN 'NOTHING'
                   WHEN 'i' THEN coalesce('USING INDEX ' || quote_ident(x.relname), 'DEFAULT')
                   ELSE 'DEFAULT'
               END AS former
        FROM whole
        JOIN pg_class c ON c.oid = whole.relation AND c.relkind IN ('r', 'p') AND c.relreplident <> 'f'
        LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident
        LEFT JOIN pg_class x ON x.oid = i.indexrelid
        ORDER BY c.oid
    LOOP
        PERFORM cdc.make('replica identity', item.relation::text,
                         format('ALTER TABLE %s REPLICA IDENTITY FULL', item.relation),
                         format('ALTER TABLE IF EXISTS %s REPLICA IDENTITY %s', item.relation, item.former));
    END LOOP;
END
$cdc$;
