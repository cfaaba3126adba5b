-- The parking lot: cdc.parked keeps the events that a handler with on_error="park" could not take.
--
-- A row holds what is needed to hand the event over again, data of rows included: so nobody but the table's owner may
-- read it, and the roles that may write cdc.slots, as those that 02_role.sql makes.
--
-- Settings: none.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -f 09_parked.sql, after 01, and after 02 when there is a role.

DO $cdc$
DECLARE
    others text;
    item record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE EXCEPTION 'the schema cdc is missing' USING HINT = 'Run 01_schema.sql first.', ERRCODE = 'undefined_table';
    END IF;
    IF to_regclass('cdc.parked') IS NULL THEN
        -- number is the order of parking; id is made of slot, subscription and event, so that an event that is parked
        -- again finds its row.
        PERFORM cdc.make('table', 'cdc.parked', 'CREATE TABLE cdc.parked (id text PRIMARY KEY, '
            'number bigint GENERATED ALWAYS AS IDENTITY, slot text NOT NULL, subscription text NOT NULL, '
            'position text, schema text, "table" text, key json, operation text NOT NULL, payload json NOT NULL, '
            'error_type text NOT NULL, error text NOT NULL, attempts integer NOT NULL, '
            'parked_at timestamptz NOT NULL DEFAULT now(), superseded_by text, requested_at timestamptz, '
            'forced boolean NOT NULL DEFAULT false)',
            'DROP TABLE IF EXISTS cdc.parked');
        CREATE INDEX parked_by_slot ON cdc.parked (slot);
        CREATE INDEX parked_requests ON cdc.parked (slot) WHERE requested_at IS NOT NULL;
        -- Default privileges may have given it to others.
        FOR others IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
            FROM pg_class, aclexplode(relacl) WHERE oid = 'cdc.parked'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format('REVOKE ALL ON cdc.parked FROM %s', others);
        END LOOP;
    END IF;

    -- Whoever may save a position may park.
    FOR item IN
        SELECT r.rolname, string_agg(upper(privilege), ', ' ORDER BY privilege) AS privileges
        FROM (SELECT DISTINCT grantee FROM pg_class, aclexplode(relacl)
              WHERE oid = to_regclass('cdc.slots') AND privilege_type = 'INSERT' AND grantee NOT IN (0, relowner)) AS writer
        JOIN pg_roles AS r ON r.oid = writer.grantee
        CROSS JOIN unnest(ARRAY['select', 'insert', 'update', 'delete']) AS privilege
        WHERE NOT has_table_privilege(r.oid, 'cdc.parked', privilege)
        GROUP BY r.rolname
    LOOP
        PERFORM cdc.make('grant', format('%s on TABLE cdc.parked to %I', item.privileges, item.rolname),
                         format('GRANT %s ON TABLE cdc.parked TO %I', item.privileges, item.rolname),
                         format('REVOKE %s ON TABLE cdc.parked FROM %I', item.privileges, item.rolname));
    END LOOP;
END
$cdc$;
