-- Rewrites: cdc.rewrites gets a row whenever DDL changes what a published table holds without a change of each row, in
-- the transaction that does it. So caches are cleared, and stores filled anew, at that place of the stream.
--
--   cdc.rewrites      one row a table concerned; "table" is NULL when that could not be found out: then it may be any
--   cdc.shapes        what each published table looked like last: columns, values of defaults, enum labels, partitions
--   cdc.table_shapes  asks the catalog for that
--   cdc.note_shapes   keeps it, and writes a row for each table that looks different
--   cdc.rewritten     calls that; the event triggers cdc_rewrites, cdc_rewrites_altered, cdc_rewrites_dropped call it
--
-- A table that is rewritten gets a row even when it looks as before, as after `ALTER COLUMN … TYPE text USING upper(…)`.
-- What happens to a partition happens to the tables above it, too.
--
-- The trigger's function runs as the superuser who ran this script, with a fixed search_path, and never fails the
-- command. Nobody else may write the tables. cdc.rewrites is added to the publication; its rows are never delivered to
-- handlers. Nobody reads them but in the stream: those older than thirty days are removed as others are written.
--
-- Settings: cdc.publication  name of the publication  wells
-- Needs:    01_schema.sql, 10_rights.sql and a superuser: anybody else gets a warning.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -f 20_rewrites.sql, after 10.

DO $cdc$
DECLARE
    owner text;
    wanted text;
    item record;
    is_new boolean;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE EXCEPTION 'the schema cdc is missing' USING HINT = 'Run 01_schema.sql first.', ERRCODE = 'undefined_table';
    END IF;
    SELECT quote_ident(r.rolname) INTO owner
    FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'cdc' AND NOT r.rolsuper;
    IF owner IS NOT NULL OR NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        IF to_regclass('cdc.rewrites') IS NULL THEN
            RAISE WARNING 'cdc.rewrites was not made: that takes a superuser, and a schema cdc that belongs to one'
                USING HINT = 'Caches and stores do not notice DDL that changes rows until a row of the table changes.';
        END IF;
        RETURN;
    END IF;
    IF to_regprocedure('cdc.published_tables()') IS NULL THEN
        RAISE EXCEPTION 'cdc.published_tables is missing'
            USING HINT = 'Run 10_rights.sql first.', ERRCODE = 'undefined_function';
    END IF;

    is_new := to_regclass('cdc.rewrites') IS NULL;
    IF is_new THEN
        PERFORM cdc.make('table', 'cdc.rewrites', 'CREATE TABLE cdc.rewrites ('
            'id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "table" oid, schema text, name text, command text NOT NULL, '
            'changed_at timestamptz NOT NULL DEFAULT now())', 'DROP TABLE IF EXISTS cdc.rewrites');
        CREATE INDEX rewrites_by_age ON cdc.rewrites (changed_at);
        COMMENT ON TABLE cdc.rewrites IS 'DDL that changed what a published table holds. "table" NULL: any.';
    END IF;
    IF to_regclass('cdc.shapes') IS NULL THEN
        PERFORM cdc.make('table', 'cdc.shapes', 'CREATE TABLE cdc.shapes ('
            '"table" oid PRIMARY KEY, schema text NOT NULL, name text NOT NULL, shape text NOT NULL)', 'DROP TABLE IF EXISTS cdc.shapes');
        COMMENT ON TABLE cdc.shapes IS 'What published tables looked like last, as a checksum.';
    END IF;
    -- Default privileges may have given them to others.
    FOR item IN
        SELECT DISTINCT oid::regclass AS name,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
        FROM pg_class, aclexplode(relacl)
        WHERE oid IN ('cdc.rewrites'::regclass, 'cdc.shapes'::regclass) AND grantee <> relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', item.name, item.role);
    END LOOP;
    INSERT INTO cdc.made (kind, name, undo)
    SELECT 'function', signature, 'DROP FUNCTION IF EXISTS ' || signature
    FROM unnest(ARRAY['cdc.table_shapes(oid[])', 'cdc.note_shapes(oid[],text,boolean)', 'cdc.rewritten()']) AS signature
    WHERE to_regprocedure(signature) IS NULL;

    CREATE OR REPLACE FUNCTION cdc.table_shapes(tables oid[]) RETURNS TABLE (oid oid, schema text, name text, shape text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $shapes$
        SELECT c.oid, n.nspname, c.relname, md5(concat_ws('|',
            format('%I.%I', n.nspname, c.relname),
            (SELECT string_agg(concat_ws(' ', a.attnum, quote_ident(a.attname), a.atttypid, a.atttypmod, a.attgenerated,
                        -- What rows hold that were there before the column was.
                        CASE WHEN a.atthasmissing THEN quote_literal(a.attmissingval::text) END,
                        CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
                        (SELECT string_agg(quote_literal(e.enumlabel), ' ' ORDER BY e.oid) FROM pg_enum e
                         WHERE e.enumtypid IN (t.oid, t.typelem, t.typbasetype))), ',' ORDER BY a.attnum)
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
             LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
            (WITH RECURSIVE below (oid) AS (
                 SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = c.oid
                 UNION SELECT i.inhrelid FROM below JOIN pg_inherits i ON i.inhparent = below.oid)
             SELECT string_agg(below.oid::text, ' ' ORDER BY below.oid) FROM below)))
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY (tables) AND c.relkind IN ('r', 'p')
    $shapes$;

    CREATE OR REPLACE FUNCTION cdc.note_shapes(tables oid[], command text, is_told boolean) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $note$
        WITH different AS (
            SELECT now.* FROM cdc.table_shapes(tables) AS now LEFT JOIN cdc.shapes s ON s."table" = now.oid
            WHERE s.shape IS DISTINCT FROM now.shape
        ), kept AS (
            INSERT INTO cdc.shapes AS s SELECT different.* FROM different ORDER BY different.oid
            ON CONFLICT ("table") DO UPDATE 
                SET schema = excluded.schema, name = excluded.name, shape = excluded.shape
        )
        INSERT INTO cdc.rewrites ("table", schema, name, command)
        SELECT different.oid, different.schema, different.name, note_shapes.command FROM different WHERE is_told ORDER BY different.oid
    $note$;

    CREATE OR REPLACE FUNCTION cdc.rewritten() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET row_security = off SET lock_timeout = '1s' AS $rewritten$
    DECLARE
        named oid[];
        concerned oid[];
        -- A new table holds nothing; what a publication has from now on is known from now on.
        is_told CONSTANT boolean := tg_tag NOT IN ('CREATE TABLE', 'CREATE PUBLICATION', 'ALTER PUBLICATION');
    BEGIN
        IF to_regclass('cdc.rewrites') IS NULL OR to_regclass('cdc.shapes') IS NULL THEN
            RETURN;
        END IF;
        IF tg_event = 'table_rewrite' THEN
            SELECT array_agg(oid) INTO named FROM pg_class
            WHERE oid = pg_event_trigger_table_rewrite_oid() AND relpersistence <> 't';
        ELSIF tg_event = 'sql_drop' THEN
            IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                           WHERE NOT d.is_temporary AND d.object_type = 'table') THEN
                RETURN;
            END IF;
            WITH gone AS (
                DELETE FROM cdc.shapes s USING pg_event_trigger_dropped_objects() d
                WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND s."table" = d.objid
                RETURNING s."table", s.schema, s.name
            )
            INSERT INTO cdc.rewrites ("table", schema, name, command) SELECT gone.*, tg_tag FROM gone;
            -- A partition among them is missing from what the tables above it looked like.
            SELECT array_agg(s."table") INTO named FROM cdc.shapes s;
        ELSIF tg_tag IN ('ALTER TABLE', 'CREATE TABLE') THEN
            SELECT array_agg(c.oid) INTO named FROM pg_event_trigger_ddl_commands() d
            JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relpersistence <> 't';
        ELSE
            named := ARRAY(SELECT oid FROM cdc.published_tables() AS oid);
        END IF;
        IF named IS NULL THEN
            RETURN;
        END IF;
        WITH RECURSIVE above (oid) AS (
            SELECT unnest(named) UNION SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.oid
        ), below (oid) AS (
            SELECT unnest(named) UNION SELECT i.inhrelid FROM below JOIN pg_inherits i ON i.inhparent = below.oid
        )
        SELECT array_agg(published.oid) INTO concerned FROM cdc.published_tables() AS published (oid)
        WHERE published.oid IN (SELECT above.oid FROM above UNION SELECT below.oid FROM below);
        IF concerned IS NULL THEN
            RETURN;
        END IF;
        IF tg_event = 'table_rewrite' THEN
            INSERT INTO cdc.rewrites ("table", schema, name, command)
            SELECT c.oid, n.nspname, c.relname, tg_tag
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (concerned);
        ELSE
            PERFORM cdc.note_shapes(concerned, tg_tag, is_told);
        END IF;
        BEGIN
            DELETE FROM cdc.rewrites WHERE changed_at < now() - interval '30 days';
        EXCEPTION WHEN OTHERS THEN
            NULL;  -- Another transaction does the same.
        END;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'cdc could not note which table was rewritten: %', SQLERRM
            USING HINT = 'Caches are cleared and stores are filled anew, whatever table they are of.';
        BEGIN
            INSERT INTO cdc.rewrites (command) VALUES (tg_tag);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'cdc could not even note that it does not know it: %', SQLERRM;
        END;
    END
    $rewritten$;

    wanted := cdc.setting('publication', 'wells');
    IF EXISTS (SELECT FROM pg_publication WHERE pubname = wanted)
       AND NOT EXISTS (SELECT FROM pg_publication_tables
                       WHERE pubname = wanted AND schemaname = 'cdc' AND tablename = 'rewrites') THEN
        PERFORM cdc.make('published table', format('cdc.rewrites in %I', wanted),
                         format('ALTER PUBLICATION %I ADD TABLE cdc.rewrites', wanted),
                         format('ALTER PUBLICATION %I DROP TABLE cdc.rewrites', wanted));
    END IF;
    -- What changed while the triggers were away is told now.
    PERFORM cdc.note_shapes(ARRAY(SELECT oid FROM cdc.published_tables() AS oid), 'cdc setup', NOT is_new);
    DELETE FROM cdc.rewrites WHERE changed_at < now() - interval '30 days';
    FOR item IN
        SELECT * FROM (VALUES
            ('cdc_rewrites', 'table_rewrite'),
            ('cdc_rewrites_altered', 'ddl_command_end WHEN TAG IN (''ALTER TABLE'', ''CREATE TABLE'', ''ALTER TYPE'', '
             '''ALTER DOMAIN'', ''ALTER SCHEMA'', ''CREATE PUBLICATION'', ''ALTER PUBLICATION'')'),
            ('cdc_rewrites_dropped', 'sql_drop')) AS trigger (name, fires)
        WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = trigger.name)
    LOOP
        PERFORM cdc.make('event trigger', item.name,
            format('CREATE EVENT TRIGGER %I ON %s EXECUTE FUNCTION cdc.rewritten()', item.name, item.fires),
            format('DROP EVENT TRIGGER IF EXISTS %I', item.name));
    END LOOP;
END
$cdc$;
