-- A role for the consumer: LOGIN REPLICATION, the schema cdc, cdc.slots, and SELECT on the published tables.
--
-- A role that this script makes gets BYPASSRLS too, when whoever runs it may give that: caches load through it, a
-- load under row-level security is refused rather than incomplete, and REPLICATION streams every row anyway. A role
-- that exists gets REPLICATION and LOGIN when it lacks them, never BYPASSRLS: it may be an application's own.
-- It never gets cdc.made. It has no password: set one with \password in psql.
--
-- Settings: cdc.role         name of the role             cdc_reader
--           cdc.publication  name of the publication      wells
-- Needs:    01_schema.sql. Run it after 03 or 04, and again when tables were added: it grants SELECT on what is
--           published by then.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -c "SET cdc.role = 'cdc_reader'" -f 02_role.sql

DO $cdc$
DECLARE
    wanted text;
    published text;
    attributes text := 'LOGIN REPLICATION';
    item record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE EXCEPTION 'the schema cdc is missing' USING HINT = 'Run 01_schema.sql first.', ERRCODE = 'undefined_table';
    END IF;
    wanted := cdc.setting('role', 'cdc_reader');
    published := cdc.setting('publication', 'wells');

    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)) THEN
            attributes := attributes || ' BYPASSRLS';
        END IF;
        PERFORM cdc.make('role', wanted, format('CREATE ROLE %I %s', wanted, attributes),
                         format('DROP ROLE IF EXISTS %I', wanted));
        RAISE NOTICE 'The role has no password yet. Set one in psql: \password %', quote_ident(wanted);
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = wanted AND NOT rolcanlogin) THEN
        PERFORM cdc.make('attribute', wanted, format('ALTER ROLE %I LOGIN', wanted),
                         format('ALTER ROLE %I NOLOGIN', wanted));
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = wanted AND NOT rolreplication AND NOT rolsuper) THEN
        PERFORM cdc.make('attribute', wanted, format('ALTER ROLE %I REPLICATION', wanted),
                         format('ALTER ROLE %I NOREPLICATION', wanted));
    END IF;

    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = published) THEN
        RAISE WARNING 'publication % does not exist yet, so there is no table to grant SELECT on', quote_ident(published)
            USING HINT = 'Run this script again after 03_publication_table.sql or 04_publication_all_tables.sql.';
    END IF;

    FOR item IN
        WITH tables AS (
            -- Published under its root's name or its own: both are read by that name.
            SELECT n.oid AS schema_oid, n.nspname, c.oid AS table_oid
            FROM pg_publication_tables p
            JOIN pg_namespace n ON n.nspname = p.schemaname
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
            WHERE p.pubname = published AND p.schemaname <> 'cdc'
        ), wishes AS (
            SELECT 1 AS rank, format('SCHEMA %I', nspname) AS object, 'USAGE' AS privilege,
                   has_schema_privilege(wanted, schema_oid, 'USAGE') AS held FROM tables
            UNION SELECT 1, 'SCHEMA cdc', 'USAGE', has_schema_privilege(wanted, 'cdc', 'USAGE')
            UNION SELECT 2, 'TABLE cdc.slots', upper(privilege), has_table_privilege(wanted, 'cdc.slots', privilege)
                  FROM unnest(ARRAY['select', 'insert', 'update', 'delete']) AS privilege
            UNION SELECT 2, 'TABLE cdc.snapshots', upper(privilege),
                         has_table_privilege(wanted, to_regclass('cdc.snapshots'), privilege)
                  FROM unnest(ARRAY['select', 'insert', 'update', 'delete']) AS privilege
            UNION SELECT 3, format('TABLE %s', table_oid::regclass), 'SELECT',
                         has_table_privilege(wanted, table_oid, 'SELECT') FROM tables
        )
        SELECT object, string_agg(privilege, ', ' ORDER BY privilege) AS privileges
        FROM wishes WHERE NOT held GROUP BY rank, object ORDER BY rank, object
    LOOP
        PERFORM cdc.make('grant', format('%s on %s to %I', item.privileges, item.object, wanted),
                         format('GRANT %s ON %s TO %I', item.privileges, item.object, wanted),
                         format('REVOKE %s ON %s FROM %I', item.privileges, item.object, wanted));
    END LOOP;

    IF has_table_privilege(wanted, 'cdc.made', 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
       AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = wanted) AND wanted <> current_user THEN
        RAISE WARNING 'role % may write cdc.made, whose statements are executed by 08_remove.sql', quote_ident(wanted)
            USING HINT = 'Take that right, or the membership that brings it, away from it.';
    END IF;
    FOR item IN
        SELECT c.oid::regclass AS relation
        FROM pg_publication_tables p
        JOIN pg_namespace n ON n.nspname = p.schemaname
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
        JOIN pg_roles r ON r.rolname = wanted AND NOT r.rolbypassrls AND NOT r.rolsuper
        WHERE p.pubname = published AND c.relrowsecurity AND NOT pg_has_role(r.oid, c.relowner, 'USAGE')
    LOOP
        RAISE WARNING '% has row-level security and role % does not bypass it, so caches cannot load it',
            item.relation, quote_ident(wanted)
            USING HINT = format('If that role is the consumer''s only: ALTER ROLE %I BYPASSRLS;', wanted);
    END LOOP;
END
$cdc$;
