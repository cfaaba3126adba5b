-- A publication with all tables of schema public. Run it again after new tables came: it adds them.
--
-- Not FOR ALL TABLES, which would take a superuser and publish the schema cdc as well. Tables of extensions and
-- unlogged tables are left out, partitions come under the name of their root. A table without replica identity is
-- left out with a warning: once it is published, UPDATE and DELETE on it fail for everybody who writes it.
--
-- Settings: cdc.publication  name of the publication  wells
-- Needs:    01_schema.sql.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -f 04_publication_all_tables.sql

DO $cdc$
DECLARE
    wanted text;
    publication pg_publication;
    relation regclass;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('cdc.made') IS NULL THEN
        RAISE EXCEPTION 'the schema cdc is missing' USING HINT = 'Run 01_schema.sql first.', ERRCODE = 'undefined_table';
    END IF;
    wanted := cdc.setting('publication', 'wells');
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = wanted) THEN
        PERFORM cdc.make('publication', wanted,
                         format('CREATE PUBLICATION %I WITH (publish_via_partition_root = true)', wanted),
                         format('DROP PUBLICATION IF EXISTS %I', wanted));
    END IF;
    SELECT * INTO STRICT publication FROM pg_publication WHERE pubname = wanted;

    FOR relation IN
        SELECT c.oid::regclass FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
          AND NOT c.relispartition AND NOT publication.puballtables
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
          AND NOT EXISTS (SELECT FROM pg_publication_rel WHERE prpubid = publication.oid AND prrelid = c.oid)
          AND NOT EXISTS (SELECT FROM pg_publication_tables p
                          WHERE p.pubname = wanted AND p.schemaname = 'public' AND p.tablename = c.relname)
        ORDER BY c.relname
    LOOP
        IF (publication.pubupdate OR publication.pubdelete) AND NOT cdc.has_identity(relation) THEN
            RAISE WARNING '% is left out: it has no replica identity, and UPDATE and DELETE on it would fail', relation
                USING HINT = format('Give it a primary key, or run 06_replica_identity.sql (--replica-identity-full), '
                                    'which does ALTER TABLE %s REPLICA IDENTITY FULL; then run this again.', relation);
            CONTINUE;
        END IF;
        PERFORM cdc.make('published table', format('%s in %I', relation, wanted),
                         format('ALTER PUBLICATION %I ADD TABLE %s', wanted, relation),
                         format('ALTER PUBLICATION %I DROP TABLE %s', wanted, relation));
    END LOOP;
END
$cdc$;
