-- A publication with one table or several; those that are in it already stay.
--
-- A new publication publishes every operation, and partitions under the name of their root. A table without replica
-- identity is refused: once it is published, UPDATE and DELETE on it fail for everybody who writes it.
--
-- Settings: cdc.publication  name of the publication                        wells
--           cdc.tables       comma-separated list; schema defaults to public  public.wells
-- Needs:    01_schema.sql.
-- Run:      psql -1 -v ON_ERROR_STOP=1 -c "SET cdc.tables = 'wells, projects'" -f 03_publication_table.sql

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

    FOR relation IN SELECT cdc.named_tables() LOOP
        CONTINUE WHEN publication.puballtables
            OR EXISTS (SELECT FROM pg_publication_rel WHERE prpubid = publication.oid AND prrelid = relation)
            OR EXISTS (
                SELECT FROM pg_publication_tables p
                JOIN pg_namespace n ON n.nspname = p.schemaname
                JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
                WHERE p.pubname = wanted AND c.oid = relation
            );
        IF (publication.pubupdate OR publication.pubdelete) AND NOT cdc.has_identity(relation) THEN
            RAISE EXCEPTION '% has no replica identity: once it is published, UPDATE and DELETE on it fail', relation
                USING HINT = format('Give it a primary key, or run 06_replica_identity.sql first (--replica-identity-full), '
                                    'which does ALTER TABLE %s REPLICA IDENTITY FULL.', relation),
                      ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        PERFORM cdc.make('published table', format('%s in %I', relation, wanted),
                         format('ALTER PUBLICATION %I ADD TABLE %s', wanted, relation),
                         format('ALTER PUBLICATION %I DROP TABLE %s', wanted, relation));
    END LOOP;
END
$cdc$;
