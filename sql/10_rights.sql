-- Rights in the stream: cdc.rights gets a row whenever the rights on a published table change, in the transaction
-- that changes them. So they reach the consumer in commit order, and it judges each change by the rights of its time.
--
--   cdc.rights            one row a change: the table, and all that its rights are made of (see docs/rights.md)
--   cdc.table_facts       asks the catalog for that; the query is the consumer's own
--   cdc.published_tables  the tables of all publications
--   cdc.note_rights       writes a row for each of these whose rights are not those of its last row
--   cdc.rights_changed    calls that after a command; the event triggers cdc_rights and cdc_rights_dropped call it
--
-- The trigger's function runs as the superuser who ran this script, with a fixed search_path, and never fails the
-- command: what it cannot note it notes as unknown, and then nobody but trusted subscribers sees the table's changes.
-- Nobody else may write the table. It is added to the publication; the consumer never delivers its rows.
--
-- Roles, memberships, ALTER ROLE … SET and REASSIGN OWNED have no event triggers: the consumer reads those again and
-- again. Transactions that change rights wait for each other, a second at most.
--
-- Rows that are older than thirty days and that no slot needs any more are removed: those before the last one that every
-- slot of this database has finished with, by what cdc.slots says. A slot that has no row there keeps all of them.
--
-- Settings: cdc.publication  name of the publication  wells
-- Needs:    01_schema.sql, and a superuser: anybody else gets a warning, and the consumer reads the newest rights.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -f 10_rights.sql, after 03 or 04, and after 02 when there is a role.

DO $cdc$
DECLARE
    owner text;
    wanted text;
    item record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE EXCEPTION 'the schema cdc is missing' USING HINT = 'Run 01_schema.sql first.', ERRCODE = 'undefined_table';
    END IF;
    SELECT quote_ident(r.rolname) INTO owner
    FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'cdc' AND NOT r.rolsuper;
    IF owner IS NOT NULL OR NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        IF to_regclass('cdc.rights') IS NULL THEN
            RAISE WARNING 'cdc.rights was not made: that takes a superuser, and a schema cdc that belongs to one'
                USING HINT = 'Row-level security is decided by the newest rights then, not by those of the time of a change.';
        END IF;
        RETURN;
    END IF;

    IF to_regclass('cdc.rights') IS NULL THEN
        PERFORM cdc.make('table', 'cdc.rights', 'CREATE TABLE cdc.rights ('
            'id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "table" oid NOT NULL, name text NOT NULL, facts jsonb, '
            'changed_at timestamptz NOT NULL DEFAULT now())', 'DROP TABLE IF EXISTS cdc.rights');
        CREATE INDEX rights_by_table ON cdc.rights ("table", id);
        COMMENT ON TABLE cdc.rights IS 'The rights on published tables, a row for each change. facts NULL: unknown.';
        -- Default privileges may have given it to others.
        FOR item IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
            FROM pg_class, aclexplode(relacl) WHERE oid = 'cdc.rights'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format('REVOKE ALL ON cdc.rights FROM %s', item.role);
        END LOOP;
    END IF;
    INSERT INTO cdc.made (kind, name, undo)
    SELECT 'function', signature, 'DROP FUNCTION IF EXISTS ' || signature
    FROM unnest(ARRAY['cdc.table_facts(oid[])', 'cdc.published_tables()', 'cdc.note_rights(oid[])',
                      'cdc.rights_changed()']) AS signature
    WHERE to_regprocedure(signature) IS NULL;

    CREATE OR REPLACE FUNCTION cdc.table_facts(tables oid[]) RETURNS TABLE (oid oid, facts jsonb)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $facts$
WITH RECURSIVE asked AS (
    SELECT c.oid, c.relname, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity,
           n.nspname, n.nspowner, n.nspacl
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY ($1::oid[]) AND c.relkind IN ('r', 'p')
), policy AS MATERIALIZED (
    SELECT p.polrelid AS relation, p.polname, p.polpermissive, p.polcmd, p.polroles, p.polqual::text AS tree,
           pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS expression
    FROM pg_catalog.pg_policy p WHERE p.polrelid = ANY ($1::oid[]) AND p.polcmd IN ('*', 'r')
), own AS MATERIALIZED (
    SELECT f.oid, pg_catalog.lower(f.proname) AS name, f.prolang = 14 AND f.prosqlbody IS NULL AS is_text,
           pg_catalog.lower(f.prosrc) AS body
    FROM pg_catalog.pg_proc f WHERE f.oid >= 16384
), called (relation, function, operator, tree) AS (
    SELECT p.relation, 0::oid, 0::oid, p.tree FROM policy p WHERE p.tree IS NOT NULL
    UNION
    SELECT c.relation, f.oid, mentioned.operator, f.prosqlbody::text
    FROM called c, LATERAL (
        SELECT found[1]::oid, 0::oid
        FROM pg_catalog.regexp_matches(c.tree, ':(?:funcid|opfuncid) ([0-9]{1,10})\y', 'g') AS found
        UNION
        SELECT o.oprcode, o.oid
        FROM pg_catalog.regexp_matches(c.tree, ':opnos? (?:\(o )?([0-9][0-9 ]*)', 'g') AS found,
            pg_catalog.regexp_split_to_table(pg_catalog.btrim(found[1]), ' +') AS number
        JOIN pg_catalog.pg_operator o ON o.oid = number::oid
        UNION
        -- A body that is a string names what it calls; any function of such a name may be meant.
        SELECT named.oid, 0::oid FROM own caller JOIN own named ON pg_catalog.strpos(caller.body, named.name) > 0
        WHERE caller.oid = c.function AND caller.is_text
    ) AS mentioned (function, operator)
    JOIN pg_catalog.pg_proc f ON f.oid = mentioned.function
), described AS MATERIALIZED (
    SELECT f.oid, pg_catalog.jsonb_build_object(
        'schema', n.nspname, 'name', f.proname, 'arguments', pg_catalog.pg_get_function_identity_arguments(f.oid),
        'language', l.lanname, 'body', f.prosrc, 'tree', f.prosqlbody::text, 'definer', f.prosecdef,
        'settings', f.proconfig, 'result', f.prorettype::bigint, 'set', f.proretset, 'count', f.pronargs,
        'kind', f.prokind, 'volatility', f.provolatile, 'owner', f.proowner::bigint,
        'execute', (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
                    FROM pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) g
                    WHERE g.privilege_type = 'EXECUTE')) AS facts
    FROM pg_catalog.pg_proc f
    JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace JOIN pg_catalog.pg_language l ON l.oid = f.prolang
    WHERE f.oid IN (SELECT c.function FROM called c)
), server AS MATERIALIZED (
    SELECT pg_catalog.jsonb_build_object(
        'utf8', pg_catalog.pg_encoding_to_char(d.encoding) = 'UTF8',
        'nondeterministic', (SELECT pg_catalog.jsonb_agg(l.oid::bigint ORDER BY l.oid)
                             FROM pg_catalog.pg_collation l WHERE NOT l.collisdeterministic),
        'code_point', (
            SELECT pg_catalog.jsonb_agg(plain.oid::bigint ORDER BY plain.oid)
            FROM (SELECT l.oid FROM pg_catalog.pg_collation l
                  WHERE (l.collprovider = 'c' AND l.collcollate IN ('C', 'POSIX') AND l.collctype IN ('C', 'POSIX'))
                     OR (l.collprovider = 'b' AND pg_catalog.to_jsonb(l) ->> 'colllocale' = 'C')
                  UNION SELECT 100::oid
                  WHERE CASE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c')
                      WHEN 'c' THEN d.datcollate IN ('C', 'POSIX') AND d.datctype IN ('C', 'POSIX')
                      WHEN 'b' THEN pg_catalog.to_jsonb(d) ->> 'datlocale' = 'C'
                  END) AS plain),
        -- The database's own, when its language is one in which i and I are each other's case.
        'plain_case', (
            SELECT pg_catalog.jsonb_build_array(100)
            WHERE pg_catalog.substring(CASE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c')
                WHEN 'c' THEN d.datctype::text
                ELSE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale')
            END, '^[A-Za-z]+') IN (
                'C', 'POSIX', 'PG', 'und', 'ar', 'bg', 'ca', 'cs', 'da', 'de', 'el', 'en', 'es', 'et', 'fi', 'fr', 'he',
                'hi', 'hr', 'hu', 'id', 'it', 'ja', 'ko', 'lv', 'nb', 'nl', 'nn', 'no', 'pl', 'pt', 'ro', 'ru', 'sk',
                'sl', 'sr', 'sv', 'th', 'uk', 'vi', 'zh'))) AS facts
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
)
SELECT a.oid, server.facts || pg_catalog.jsonb_build_object(
    'format', 1,
    'schema', a.nspname,
    'table', a.relname,
    'owner', a.relowner::bigint,
    'row_security', a.relrowsecurity,
    'forced', a.relforcerowsecurity,
    'usage', (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
              FROM pg_catalog.aclexplode(coalesce(a.nspacl, pg_catalog.acldefault('n', a.nspowner))) g
              WHERE g.privilege_type = 'USAGE'),
    'select', (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
               FROM pg_catalog.aclexplode(coalesce(a.relacl, pg_catalog.acldefault('r', a.relowner))) g
               WHERE g.privilege_type = 'SELECT'),
    'columns', (
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
            t.attnum, t.attname, t.atttypid::bigint, y.typbasetype::bigint,
            (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint) FROM pg_catalog.aclexplode(t.attacl) g
             WHERE g.privilege_type = 'SELECT')) ORDER BY t.attnum)
        FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_type y ON y.oid = t.atttypid
        WHERE t.attrelid = a.oid AND t.attnum > 0 AND NOT t.attisdropped),
    'policies', (
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', p.polname, 'permissive', p.polpermissive,
            'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' ELSE 'ALL' END,
            'roles', p.polroles::bigint[], 'tree', p.tree, 'expression', p.expression,
            'to', ARRAY(SELECT CASE role WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(role)::text END
                        FROM pg_catalog.unnest(p.polroles) WITH ORDINALITY AS u(role, place) ORDER BY place)
            ) ORDER BY p.polname)
        FROM policy p WHERE p.relation = a.oid),
    'operators', (
        SELECT pg_catalog.jsonb_object_agg(o.oid, pg_catalog.jsonb_build_array(
            CASE n.nspname WHEN 'pg_catalog' THEN o.oprname::text ELSE n.nspname || '.' || o.oprname END,
            o.oprcode::oid::bigint))
        FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
        WHERE o.oid IN (SELECT c.operator FROM called c WHERE c.relation = a.oid AND c.operator <> 0)),
    'functions', (
        SELECT pg_catalog.jsonb_object_agg(f.oid, f.facts) FROM described f
        WHERE f.oid IN (SELECT c.function FROM called c WHERE c.relation = a.oid))
) AS facts
FROM asked a, server
$facts$;

    CREATE OR REPLACE FUNCTION cdc.published_tables() RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tables$
        SELECT DISTINCT c.oid FROM pg_publication_tables p
        JOIN pg_namespace n ON n.nspname = p.schemaname
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
        WHERE p.schemaname <> 'cdc'
    $tables$;

    CREATE OR REPLACE FUNCTION cdc.note_rights(tables oid[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $note$
    BEGIN
        IF current_setting('transaction_isolation') <> 'read committed'
           AND (SELECT last_value FROM cdc.rights_id_seq WHERE is_called) > (SELECT coalesce(max(id), 0) FROM cdc.rights) THEN
            RAISE EXCEPTION 'rights were changed that this transaction does not see';
        END IF;
        INSERT INTO cdc.rights ("table", name, facts)
        SELECT now.oid, format('%I.%I', now.facts ->> 'schema', now.facts ->> 'table'), now.facts
        FROM cdc.table_facts(tables) AS now
        LEFT JOIN LATERAL (SELECT r.facts FROM cdc.rights r WHERE r."table" = now.oid ORDER BY r.id DESC LIMIT 1) AS last
            ON true
        WHERE last.facts IS DISTINCT FROM now.facts ORDER BY now.oid;
    END
    $note$;

    CREATE OR REPLACE FUNCTION cdc.rights_changed() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET row_security = off SET lock_timeout = '1s' AS $changed$
    DECLARE
        named oid[];
        concerned oid[];
    BEGIN
        IF to_regclass('cdc.rights') IS NULL OR NOT (CASE
            WHEN tg_event = 'sql_drop' THEN EXISTS (
                SELECT FROM pg_event_trigger_dropped_objects() d
                WHERE NOT d.is_temporary
                  AND CASE WHEN d.object_type IN ('policy', 'table column')
                           THEN to_regclass(format('%I.%I', d.address_names[1], d.address_names[2])) IS NOT NULL
                           ELSE d.object_type IN ('function', 'operator', 'schema', 'extension', 'collation') END)
            WHEN tg_tag IN ('GRANT', 'REVOKE') THEN EXISTS (
                SELECT FROM pg_event_trigger_ddl_commands() d
                WHERE d.object_type IN ('TABLE', 'SCHEMA', 'FUNCTION', 'PROCEDURE', 'ROUTINE'))
            ELSE true
        END) THEN
            RETURN;
        END IF;
        IF tg_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE POLICY', 'ALTER POLICY')
           AND tg_event = 'ddl_command_end' THEN
            WITH RECURSIVE family (oid) AS (
                SELECT coalesce(p.polrelid, c.oid) FROM pg_event_trigger_ddl_commands() d
                LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relpersistence = 'p'
                LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
                UNION SELECT i.inhrelid FROM family JOIN pg_inherits i ON i.inhparent = family.oid
            )
            SELECT array_agg(oid) INTO named FROM family WHERE oid IS NOT NULL;
            IF named IS NULL THEN
                RETURN;
            END IF;
        END IF;
        SELECT array_agg(oid) INTO concerned FROM cdc.published_tables() AS oid WHERE named IS NULL OR oid = ANY (named);
        IF concerned IS NOT NULL THEN
            -- Whoever comes second must see what the first has changed, or his rows would take it back.
            PERFORM pg_advisory_xact_lock(hashtextextended('cdc rights', 0));
            PERFORM cdc.note_rights(concerned);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'cdc could not note how rights have changed: %', SQLERRM
            USING HINT = 'Until the consumer has read them anew, subscribers with a subject see nothing of the tables.';
        BEGIN
            INSERT INTO cdc.rights ("table", name)
            SELECT last."table", last.name
            FROM (SELECT DISTINCT ON (r."table") r."table", r.name, r.facts IS NULL AS unknown FROM cdc.rights r
                  WHERE concerned IS NULL OR r."table" = ANY (concerned) ORDER BY r."table", r.id DESC) AS last
            WHERE NOT last.unknown;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'cdc could not even note that it does not know them: %', SQLERRM;
        END;
    END
    $changed$;

    -- The rights as they are now: for a new table, and when these functions ask for more than they did.
    PERFORM pg_advisory_xact_lock(hashtextextended('cdc rights', 0));
    wanted := cdc.setting('publication', 'wells');
    IF EXISTS (SELECT FROM pg_publication WHERE pubname = wanted)
       AND NOT EXISTS (SELECT FROM pg_publication_tables
                       WHERE pubname = wanted AND schemaname = 'cdc' AND tablename = 'rights') THEN
        PERFORM cdc.make('published table', format('cdc.rights in %I', wanted),
                         format('ALTER PUBLICATION %I ADD TABLE cdc.rights', wanted),
                         format('ALTER PUBLICATION %I DROP TABLE cdc.rights', wanted));
    END IF;
    PERFORM cdc.note_rights(ARRAY(SELECT oid FROM cdc.published_tables() AS oid));
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'cdc_rights') THEN
        PERFORM cdc.make('event trigger', 'cdc_rights', 'CREATE EVENT TRIGGER cdc_rights ON ddl_command_end WHEN TAG IN ('
            '''GRANT'', ''REVOKE'', ''CREATE POLICY'', ''ALTER POLICY'', ''CREATE TABLE'', ''CREATE TABLE AS'', '
            '''SELECT INTO'', ''ALTER TABLE'', ''CREATE FUNCTION'', ''ALTER FUNCTION'', ''ALTER ROUTINE'', '
            '''CREATE SCHEMA'', ''ALTER SCHEMA'', ''CREATE OPERATOR'', ''ALTER OPERATOR'', ''CREATE COLLATION'', '
            '''ALTER COLLATION'', ''ALTER TYPE'', ''ALTER DOMAIN'', ''CREATE PUBLICATION'', ''ALTER PUBLICATION'', '
            '''CREATE EXTENSION'', ''ALTER EXTENSION'', ''DROP OWNED'') EXECUTE FUNCTION cdc.rights_changed()',
            'DROP EVENT TRIGGER IF EXISTS cdc_rights');
    END IF;
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'cdc_rights_dropped') THEN
        PERFORM cdc.make('event trigger', 'cdc_rights_dropped',
            'CREATE EVENT TRIGGER cdc_rights_dropped ON sql_drop EXECUTE FUNCTION cdc.rights_changed()',
            'DROP EVENT TRIGGER IF EXISTS cdc_rights_dropped');
    END IF;

    -- Whoever may save a position has to know where rights begin.
    FOR item IN
        SELECT r.rolname
        FROM (SELECT DISTINCT grantee FROM pg_class, aclexplode(relacl)
              WHERE oid = to_regclass('cdc.slots') AND privilege_type = 'INSERT' AND grantee NOT IN (0, relowner)) AS writer
        JOIN pg_roles AS r ON r.oid = writer.grantee
        WHERE NOT has_table_privilege(r.oid, 'cdc.rights', 'SELECT')
    LOOP
        PERFORM cdc.make('grant', format('SELECT on TABLE cdc.rights to %I', item.rolname),
                         format('GRANT SELECT ON TABLE cdc.rights TO %I', item.rolname),
                         format('REVOKE SELECT ON TABLE cdc.rights FROM %I', item.rolname));
    END LOOP;

    IF NOT EXISTS (SELECT FROM pg_replication_slots s LEFT JOIN cdc.slots k ON k.slot = s.slot_name
                   WHERE s.database = current_database() AND k.rights IS NULL) THEN
        DELETE FROM cdc.rights r
        WHERE r.changed_at < now() - interval '30 days'
          AND EXISTS (SELECT FROM cdc.rights later WHERE later."table" = r."table" AND later.id > r.id
                      AND later.id <= coalesce((SELECT min(rights) FROM cdc.slots), later.id));
    END IF;
END
$cdc$;
