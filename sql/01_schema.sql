-- The schema cdc: what the consumer keeps on the server, and a note of each thing that these scripts make.
--
--   cdc.slots      one row a replication slot: its epoch and the position that the consumer has finished
--   cdc.snapshots  one row a subscription: how far its snapshot of the table has come
--   cdc.made       what the scripts really changed, and the statement that undoes it; 08_remove.sql runs these
--
-- and the functions that the other scripts share: cdc.setting, cdc.named_tables, cdc.has_identity, cdc.make.
-- They run with the rights of whoever calls them.
--
-- Settings: none.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -f 01_schema.sql
--
-- cdc.made is for its owner only: 08_remove.sql executes what is written there. For the same reason a schema cdc
-- that belongs to somebody else is refused.

DO $cdc$
DECLARE
    new_schema boolean;
    new_made boolean;
    stranger text;
    made text;
BEGIN
    -- Names are looked up in pg_catalog only, so that nobody's function of the same name is called instead.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF current_setting('server_version_num')::int < 140000 THEN
        RAISE EXCEPTION 'PostgreSQL % is too old', current_setting('server_version')
            USING HINT = 'cdc needs version 14 or later.', ERRCODE = 'feature_not_supported';
    END IF;
    -- Several that run at once, as when several processes start, wait for each other.
    PERFORM pg_advisory_xact_lock(hashtextextended('cdc setup', 0));
    SELECT format('schema cdc or an object in it belongs to role %I', pg_get_userbyid(owned.owner)) INTO stranger
    FROM (
        SELECT nspowner AS owner FROM pg_namespace WHERE nspname = 'cdc'
        UNION SELECT relowner FROM pg_class
              WHERE oid IN (to_regclass('cdc.made'), to_regclass('cdc.slots'), to_regclass('cdc.snapshots'))
        UNION SELECT proowner FROM pg_proc WHERE pronamespace = to_regnamespace('cdc')
    ) AS owned
    JOIN pg_roles AS me ON me.rolname = current_user
    JOIN pg_roles AS other ON other.oid = owned.owner
    WHERE owned.owner <> me.oid AND NOT (me.rolsuper AND other.rolsuper);
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION '%, not to %', stranger, quote_ident(current_user)
            USING HINT = 'Run this as that role: what lies in schema cdc is executed with the rights of whoever runs it.',
                  ERRCODE = 'insufficient_privilege';
    END IF;

    new_schema := to_regnamespace('cdc') IS NULL;
    new_made := to_regclass('cdc.made') IS NULL;
    IF new_schema THEN
        CREATE SCHEMA cdc;
        RAISE NOTICE 'CREATE SCHEMA cdc';
    END IF;
    IF new_made THEN
        CREATE TABLE cdc.made (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text NOT NULL,
            name text NOT NULL,
            undo text NOT NULL,
            made_at timestamptz NOT NULL DEFAULT now()
        );
        RAISE NOTICE 'CREATE TABLE cdc.made';
        -- Default privileges may have given it to others.
        FOR made IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
            FROM pg_class, aclexplode(relacl) WHERE oid = 'cdc.made'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format('REVOKE ALL ON cdc.made FROM %s', made);
        END LOOP;
    END IF;
    IF new_schema THEN
        INSERT INTO cdc.made (kind, name, undo) VALUES ('schema', 'cdc', 'DROP SCHEMA IF EXISTS cdc');
    END IF;
    IF new_made THEN
        INSERT INTO cdc.made (kind, name, undo) VALUES ('table', 'cdc.made', 'DROP TABLE IF EXISTS cdc.made');
    END IF;
    INSERT INTO cdc.made (kind, name, undo)
    SELECT 'function', signature, 'DROP FUNCTION IF EXISTS ' || signature
    FROM unnest(ARRAY['cdc.setting(text,text)', 'cdc.named_tables()', 'cdc.has_identity(regclass)',
                      'cdc.make(text,text,text,text)']) AS signature
    WHERE to_regprocedure(signature) IS NULL;
END
$cdc$;

CREATE OR REPLACE FUNCTION cdc.setting(name text, fallback text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $cdc$
    -- A setting that was once set locally is '' afterwards.
    SELECT coalesce(nullif(current_setting('cdc.' || name, true), ''), fallback)
$cdc$;
COMMENT ON FUNCTION cdc.setting IS 'The value of the setting cdc.<name>, or the fallback when it is not set.';

CREATE OR REPLACE FUNCTION cdc.named_tables() RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $cdc$
DECLARE
    piece text;
    parts text[];
    found regclass;
    class pg_class;
    any_named boolean := false;
    list text := cdc.setting('tables', 'public.wells');
BEGIN
    IF length(replace(list, '"', '')) % 2 <> length(list) % 2 THEN
        RAISE EXCEPTION 'cdc.tables: a quote is open in %', list USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR piece IN
        -- Commas inside quoted names do not separate.
        SELECT trim(matched[1], E' \t\r\n')
        FROM regexp_matches(list, '((?:"(?:[^"]|"")*"|[^",])+)', 'g') AS matched
    LOOP
        CONTINUE WHEN piece = '';
        parts := parse_ident(piece);
        IF cardinality(parts) = 1 THEN
            parts := 'public'::text || parts;
        END IF;
        IF cardinality(parts) > 2 THEN
            RAISE EXCEPTION 'cdc.tables: % is not the name of a table', piece
                USING HINT = 'Write wells or public.wells.', ERRCODE = 'invalid_parameter_value';
        END IF;
        found := to_regclass(format('%I.%I', parts[1], parts[2]));
        IF found IS NULL THEN
            RAISE EXCEPTION 'there is no table %', format('%I.%I', parts[1], parts[2])
                USING HINT = 'Create it first, or name another one (the setting cdc.tables, or --table).',
                      ERRCODE = 'undefined_table';
        END IF;
        SELECT * INTO STRICT class FROM pg_class WHERE oid = found;
        IF class.relkind NOT IN ('r', 'p') OR class.relpersistence <> 'p' THEN
            RAISE EXCEPTION '% cannot be published: it is not an ordinary, logged table', found
                USING HINT = 'Views, foreign, unlogged and temporary tables are not in the WAL. Name a table.',
                      ERRCODE = 'wrong_object_type';
        END IF;
        any_named := true;
        RETURN NEXT found;
    END LOOP;
    IF NOT any_named THEN
        RAISE EXCEPTION 'cdc.tables names no table'
            USING HINT = 'Write wells or public.wells.', ERRCODE = 'invalid_parameter_value';
    END IF;
END
$cdc$;
COMMENT ON FUNCTION cdc.named_tables IS 'The tables of the setting cdc.tables, a comma-separated list; the schema defaults to public.';

CREATE OR REPLACE FUNCTION cdc.has_identity(relation regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $cdc$
    SELECT coalesce(bool_and(CASE c.relreplident
        WHEN 'f' THEN true
        WHEN 'n' THEN false
        WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
        ELSE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
    END), true)
    FROM pg_class c
    WHERE c.relkind = 'r' AND c.oid IN (SELECT relation UNION SELECT relid FROM pg_partition_tree(relation))
$cdc$;
COMMENT ON FUNCTION cdc.has_identity IS
    'Whether the table and its partitions have a replica identity. Without one, UPDATE and DELETE fail once it is published.';

CREATE OR REPLACE FUNCTION cdc.make(kind text, name text, statement text, undo text) RETURNS void
LANGUAGE plpgsql AS $cdc$
BEGIN
    EXECUTE make.statement;
    INSERT INTO cdc.made (kind, name, undo) VALUES (make.kind, make.name, make.undo);
    RAISE NOTICE '%', make.statement;
END
$cdc$;
COMMENT ON FUNCTION cdc.make IS 'Executes a statement and notes in cdc.made what undoes it.';

DO $cdc$
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.slots') IS NULL THEN
        -- A row is updated often and has no index but its key: room in the page keeps these updates small.
        PERFORM cdc.make('table', 'cdc.slots', 'CREATE TABLE cdc.slots (slot text PRIMARY KEY, '
            'system_id text NOT NULL, timeline integer NOT NULL, epoch text NOT NULL, commit_lsn pg_lsn, '
            'ordinal bigint, flush_lsn pg_lsn, publications text[] NOT NULL DEFAULT ''{}'', '
            'saved_at timestamptz NOT NULL DEFAULT now(), publication_oids oid[] NOT NULL DEFAULT ''{}'', '
            'rights bigint) '
            'WITH (fillfactor = 50)', 'DROP TABLE IF EXISTS cdc.slots');
    ELSIF NOT EXISTS (SELECT FROM pg_attribute
                      WHERE attrelid = 'cdc.slots'::regclass AND attname = 'publication_oids') THEN
        -- From a version before it.
        ALTER TABLE cdc.slots ADD COLUMN publication_oids oid[] NOT NULL DEFAULT '{}';
        RAISE NOTICE 'ALTER TABLE cdc.slots ADD COLUMN publication_oids';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'cdc.slots'::regclass AND attname = 'rights') THEN
        -- From a version before it. It is the id of the last row of cdc.rights that counts at flush_lsn.
        ALTER TABLE cdc.slots ADD COLUMN rights bigint;
        RAISE NOTICE 'ALTER TABLE cdc.slots ADD COLUMN rights';
    END IF;
    IF to_regclass('cdc.snapshots') IS NULL THEN
        PERFORM cdc.make('table', 'cdc.snapshots', 'CREATE TABLE cdc.snapshots (slot text, name text, '
            'bookmark jsonb NOT NULL, saved_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (slot, name)) '
            'WITH (fillfactor = 50)',
            'DROP TABLE IF EXISTS cdc.snapshots');
    END IF;
END
$cdc$;
