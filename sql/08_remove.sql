-- Undoes what cdc.made notes, the newest first; the schema cdc goes last, when these scripts made it.
--
-- What was there before setup stays: it is not noted. What others lean on by now stays too, with a warning: a role
-- that owns something, a table whose row-level security has got policies of others, parked events. Replication slots are not
-- touched (`cdc drop --everything` drops those of cdc.slots as well): a slot that stays keeps WAL for ever.
--
-- Settings: none.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -f 08_remove.sql, as the role that ran the setup.

DO $cdc$
DECLARE
    stranger text;
    item record;
    notes record;
    parked bigint;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE NOTICE 'nothing to remove: there is no table cdc.made';
        RETURN;
    END IF;
    -- The statements are executed with the rights of whoever runs this: they must be of its own writing.
    SELECT pg_get_userbyid(owned.owner) INTO stranger
    FROM (SELECT nspowner AS owner FROM pg_namespace WHERE nspname = 'cdc'
          UNION SELECT relowner FROM pg_class WHERE oid = 'cdc.made'::regclass) AS owned
    JOIN pg_roles AS me ON me.rolname = current_user
    JOIN pg_roles AS other ON other.oid = owned.owner
    WHERE owned.owner <> me.oid AND NOT (me.rolsuper AND other.rolsuper);
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION 'schema cdc or cdc.made belongs to role %, not to %', quote_ident(stranger), quote_ident(current_user)
            USING HINT = 'Run this as that role: the statements noted there are executed.',
                  ERRCODE = 'insufficient_privilege';
    END IF;
    IF to_regclass('cdc.slots') IS NOT NULL THEN
        FOR item IN SELECT s.slot_name FROM cdc.slots k JOIN pg_replication_slots s ON s.slot_name = k.slot LOOP
            RAISE WARNING 'slot % stays, and keeps WAL', item.slot_name
                USING HINT = format('SELECT pg_drop_replication_slot(%L);', item.slot_name);
        END LOOP;
    END IF;

    -- Read as a whole first: cdc.made goes too.
    SELECT array_agg(undo ORDER BY id DESC) AS undo, array_agg(kind ORDER BY id DESC) AS kind,
           array_agg(name ORDER BY id DESC) AS name INTO notes
    FROM cdc.made;
    FOR item IN SELECT * FROM unnest(notes.undo, notes.kind, notes.name) AS note (undo, kind, name) LOOP
        IF item.kind = 'row-level security'
           AND EXISTS (SELECT FROM pg_policy WHERE polrelid = to_regclass(item.name)) THEN
            RAISE WARNING 'row-level security of % stays: policies that setup did not make need it', item.name;
            CONTINUE;
        END IF;
        IF item.name = 'cdc.parked' AND item.kind = 'table' AND to_regclass('cdc.parked') IS NOT NULL THEN
            EXECUTE 'SELECT count(*) FROM cdc.parked' INTO parked;
            IF parked > 0 THEN
                RAISE WARNING 'cdc.parked stays: % events in it were never handled', parked
                    USING HINT = 'See `cdc parked list`. To do without them: DROP TABLE cdc.parked;';
                CONTINUE;
            END IF;
        END IF;
        BEGIN
            EXECUTE item.undo;
            RAISE NOTICE '%', item.undo;
        EXCEPTION
            WHEN undefined_object OR undefined_table OR invalid_schema_name THEN
                RAISE NOTICE '% % is gone already', item.kind, item.name;
            WHEN dependent_objects_still_exist THEN
                RAISE WARNING '% % stays: %', item.kind, item.name, SQLERRM
                    USING HINT = 'Others lean on it. Remove these first, then it by hand: ' || item.undo;
        END;
    END LOOP;
END
$cdc$;
