-- Row-level security with SELECT and INSERT policies for the roles anon and authenticated.
--
-- The INSERT policies are as needed as the others: without them nobody but the owner can add a row, and ingestion
-- breaks. A policy is made only where its role has none for that operation yet, because permissive policies add up:
-- a second one would widen the first. UPDATE and DELETE stay closed.
--
-- Makes the roles when they are missing (NOLOGIN), and grants them what the policies presuppose: USAGE of the schema
-- and of the sequences of serial columns, SELECT and INSERT on the table.
--
-- Settings: cdc.tables                comma-separated list; schema defaults to public  public.wells
--           cdc.select_anon           which rows anon may read                         true
--           cdc.select_authenticated  which rows authenticated may read                true
--           cdc.insert_anon           which rows anon may insert                       true
--           cdc.insert_authenticated  which rows authenticated may insert              true
--           Each is an SQL condition; false closes it. Names in it need their schema, as in auth.uid().
-- Needs:    01_schema.sql.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -c "SET cdc.select_anon = 'false'" -f 05_row_level_security.sql

DO $cdc$
DECLARE
    relation regclass;
    item record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE EXCEPTION 'the schema cdc is missing' USING HINT = 'Run 01_schema.sql first.', ERRCODE = 'undefined_table';
    END IF;
    FOR item IN SELECT name FROM unnest(ARRAY['anon', 'authenticated']) AS name
                WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) LOOP
        PERFORM cdc.make('role', item.name, format('CREATE ROLE %I NOLOGIN', item.name),
                         format('DROP ROLE IF EXISTS %I', item.name));
    END LOOP;

    FOR relation IN SELECT cdc.named_tables() LOOP
        FOR item IN
            WITH wishes AS (
                SELECT 1 AS rank, format('SCHEMA %s', relnamespace::regnamespace) AS object, 'USAGE' AS privilege, role,
                       has_schema_privilege(role, relnamespace, 'USAGE') AS held
                FROM pg_class, unnest(ARRAY['anon', 'authenticated']) AS role WHERE oid = relation
                UNION ALL
                SELECT 2, format('TABLE %s', relation), privilege, role, has_table_privilege(role, relation, privilege)
                FROM unnest(ARRAY['SELECT', 'INSERT']) AS privilege, unnest(ARRAY['anon', 'authenticated']) AS role
                UNION ALL
                SELECT 3, format('SEQUENCE %s', d.objid::regclass), 'USAGE', role,
                       has_sequence_privilege(role, d.objid, 'USAGE')
                FROM pg_depend d
                JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
                CROSS JOIN unnest(ARRAY['anon', 'authenticated']) AS role
                WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                  AND d.refobjid = relation AND d.deptype = 'a'
            )
            SELECT object, role, string_agg(privilege, ', ' ORDER BY privilege) AS privileges
            FROM wishes WHERE NOT held GROUP BY rank, object, role ORDER BY rank, object, role
        LOOP
            PERFORM cdc.make('grant', format('%s on %s to %I', item.privileges, item.object, item.role),
                             format('GRANT %s ON %s TO %I', item.privileges, item.object, item.role),
                             format('REVOKE %s ON %s FROM %I', item.privileges, item.object, item.role));
        END LOOP;

        IF NOT (SELECT relrowsecurity FROM pg_class WHERE oid = relation) THEN
            PERFORM cdc.make('row-level security', relation::text,
                             format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation),
                             format('ALTER TABLE IF EXISTS %s DISABLE ROW LEVEL SECURITY', relation));
        END IF;

        FOR item IN
            SELECT operation, role, format('cdc_%s_%s', lower(operation), role) AS name,
                   cdc.setting(format('%s_%s', lower(operation), role), 'true') AS condition,
                   CASE operation WHEN 'SELECT' THEN 'USING' ELSE 'WITH CHECK' END AS clause
            FROM unnest(ARRAY['SELECT', 'INSERT']) AS operation, unnest(ARRAY['anon', 'authenticated']) AS role
            WHERE NOT EXISTS (
                SELECT FROM pg_policy p, unnest(p.polroles) AS target
                WHERE p.polrelid = relation AND p.polpermissive
                  AND p.polcmd IN ('*', CASE operation WHEN 'SELECT' THEN 'r' ELSE 'a' END)
                  AND (target = 0 OR pg_has_role(role, target, 'USAGE'))
            )
            ORDER BY operation DESC, role
        LOOP
            PERFORM cdc.make('policy', format('%I on %s', item.name, relation),
                             format('CREATE POLICY %I ON %s FOR %s TO %I %s (%s)', item.name, relation, item.operation,
                                    item.role, item.clause, item.condition),
                             format('DROP POLICY IF EXISTS %I ON %s', item.name, relation));
        END LOOP;
    END LOOP;
END
$cdc$;
