-- What the recordings show. Run once for each version of the server; every variant of the protocol reads the same log.
--
-- `-- @a` hands what follows to the session a, each statement by itself; `-- @a 15` only from version 15 on. Before
-- the next such line the server has sent what it had to send, so a large transaction is streamed while it runs.
-- Changes of the table ballast are not published: they fill the server's memory for decoding, so that it streams
-- the transaction, and cost nothing on the wire.

-- @a
CREATE TYPE mood AS ENUM ('calm', 'loud');
CREATE DOMAIN metres AS numeric(8, 2) CHECK (VALUE >= 0);
CREATE TYPE place AS (x int, label text);
CREATE TABLE wells (
    id int PRIMARY KEY, name text, mood mood, depth metres, place place, moods mood[], notes text
);
ALTER TABLE wells ALTER COLUMN notes SET STORAGE EXTERNAL;
CREATE TABLE wholes (id int PRIMARY KEY, name text, notes text);
ALTER TABLE wholes REPLICA IDENTITY FULL;
ALTER TABLE wholes ALTER COLUMN notes SET STORAGE EXTERNAL;
CREATE TABLE indexed (id int, code text NOT NULL, name text);
CREATE UNIQUE INDEX indexed_code ON indexed (code);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code;
CREATE TABLE "Log entries" (id serial PRIMARY KEY, well int REFERENCES wells, "What happened" varchar(40));
CREATE TABLE sums (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE days (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE days_24 PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE days_25 PARTITION OF days FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE deep (id int PRIMARY KEY, depth int);
ALTER TABLE deep REPLICA IDENTITY FULL;
CREATE TABLE plain (id int);
CREATE TABLE kinds (
    id int PRIMARY KEY, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, t text, c char(4),
    v varchar(9), nm name, u uuid, d date, tm time, ts timestamp, tz timestamptz, iv interval, j json, jb jsonb,
    by bytea, ints int[], texts text[], ip inet, m money, bits bit(5), r int4range, mr int4multirange, p point,
    ch "char", o oid, x xml, mac macaddr, l pg_lsn, a aclitem
);
CREATE TABLE ballast (id int, filler text);
CREATE PUBLICATION rooted FOR TABLE days WITH (publish_via_partition_root = true);

-- @a 14 17
CREATE PUBLICATION recorded FOR TABLE wells, wholes, indexed, "Log entries", sums, plain, kinds;

-- @a 18
CREATE PUBLICATION recorded FOR TABLE wells, wholes, indexed, "Log entries", sums, plain, kinds
    WITH (publish_generated_columns = stored);

-- @a 14 14
CREATE PUBLICATION filtered FOR TABLE deep;

-- @a 15
CREATE PUBLICATION filtered FOR TABLE deep WHERE (depth > 10);

-- The recording begins here.
-- @record

-- Rows, and every kind of old tuple.
-- @a
INSERT INTO wells VALUES (1, 'one', 'calm', 1.50, ROW(1, 'a "b"')::place, '{calm,NULL,loud}', repeat('long ', 440));
INSERT INTO wells VALUES (2, NULL, NULL, NULL, NULL, NULL, NULL), (3, '', 'loud', 0, NULL, '{}', E'é\t\n');
UPDATE wells SET name = 'eins' WHERE id = 1;
UPDATE wells SET id = 10 WHERE id = 2;
UPDATE wells SET notes = 'short' WHERE id = 1;
DELETE FROM wells WHERE id = 10;
INSERT INTO wholes VALUES (1, 'one', repeat('long ', 440)), (2, 'two', NULL);
UPDATE wholes SET name = 'uno' WHERE id = 1;
DELETE FROM wholes WHERE id = 2;
INSERT INTO indexed VALUES (1, 'x', 'one');
UPDATE indexed SET name = 'uno' WHERE code = 'x';
UPDATE indexed SET code = 'y' WHERE code = 'x';
DELETE FROM indexed WHERE code = 'y';
INSERT INTO "Log entries" (well, "What happened") VALUES (1, 'drilled'), (3, 'measured');
INSERT INTO sums VALUES (1, 21);
INSERT INTO days VALUES (1, '2024-05-05');
UPDATE days SET day = '2025-05-05' WHERE id = 1;
INSERT INTO plain VALUES (1), (2);

-- @a 15
INSERT INTO deep VALUES (1, 5), (2, 20);
UPDATE deep SET depth = 30 WHERE id = 1;
UPDATE deep SET depth = 7 WHERE id = 2;
UPDATE deep SET depth = 31 WHERE id = 1;

-- @a
INSERT INTO kinds VALUES (
    1, true, -2, 9223372036854775807, 1.5, 'NaN', 123.4500, 'text', 'ab', 'var', 'name',
    '00000000-0000-0000-0000-0000000000ff', '2024-02-29', '12:34:56.789', '2024-02-29 12:34:56.789',
    '2024-02-29 12:34:56.789+00', '1 mon 2 days 03:04:05', '{"a": [1, 2.50]}', '{"a": [1, 2.50]}', '\x00ff', '{1,NULL,3}',
    '{"a,b",NULL,"c\"d"}', '10.0.0.1/8', '12.34', '10101', '[1,5)', '{[1,3),[5,7)}', '(1,2)', 'x', 4294967295,
    '<a>b</a>', '08:00:2b:01:02:03', '16/B374D848',
    'postgres=r/postgres'
);
INSERT INTO kinds (id, f8, n, d, ts, tz, ints) VALUES
    (2, '-Infinity', 'NaN', 'infinity', '-infinity', '0044-03-15 12:00:00+00 BC', '[0:1][2:3]={{1,2},{3,4}}');

-- Several relations at once, and the order of a transaction.
TRUNCATE wells, plain RESTART IDENTITY CASCADE;
BEGIN;
INSERT INTO plain VALUES (3);
TRUNCATE plain;
INSERT INTO plain VALUES (4);
COMMIT;

-- Messages: one in a transaction, one in a transaction that ends in nothing, one outside of transactions.
BEGIN;
SELECT pg_logical_emit_message(true, 'tests', 'in a transaction');
INSERT INTO plain VALUES (5);
SELECT pg_logical_emit_message(false, 'tests', 'at once');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'tests', 'never');
SELECT pg_logical_emit_message(false, 'tests', '\x00ff'::bytea);
ROLLBACK;

-- Where a transaction came from.
SELECT pg_replication_origin_create('elsewhere');
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-01 00:00:00+00');
INSERT INTO plain VALUES (6);
COMMIT;
SELECT pg_replication_origin_session_reset();

-- Definitions that change between rows, also within one transaction.
ALTER TABLE plain ADD COLUMN name text;
INSERT INTO plain VALUES (7, 'seven');
BEGIN;
INSERT INTO plain VALUES (8, 'eight');
ALTER TABLE plain RENAME COLUMN name TO label;
ALTER TABLE plain ALTER COLUMN id TYPE bigint;
INSERT INTO plain VALUES (9, 'nine');
COMMIT;
BEGIN;
ALTER TABLE plain ADD COLUMN never int;
INSERT INTO plain VALUES (10, 'ten', 10);
ROLLBACK;
INSERT INTO plain VALUES (11, 'eleven');

-- A sub-transaction that is rolled back, in a small transaction: it never shows.
BEGIN;
INSERT INTO plain VALUES (12, 'twelve');
SAVEPOINT s;
INSERT INTO plain VALUES (13, 'never');
ROLLBACK TO s;
INSERT INTO plain VALUES (14, 'fourteen');
COMMIT;

-- Large transactions, one beside the other: a commits, with two of its sub-transactions rolled back; b does not.
BEGIN;
INSERT INTO wells (id, name) VALUES (100, 'a'), (101, 'a');
SAVEPOINT one;
INSERT INTO wells (id, name) VALUES (102, 'a, never');
INSERT INTO indexed VALUES (102, 'never', 'never');
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @b
BEGIN;
INSERT INTO wells (id, name) VALUES (200, 'b, never');
SELECT pg_logical_emit_message(true, 'tests', 'b, never');
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @c
INSERT INTO wells (id, name) VALUES (300, 'c');

-- @a
ROLLBACK TO one;
INSERT INTO wells (id, name) VALUES (103, 'a');
SAVEPOINT two;
UPDATE wells SET name = 'a, kept' WHERE id = 103;
SAVEPOINT three;
DELETE FROM wells WHERE id = 103;
TRUNCATE plain;
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @a
ROLLBACK TO three;
SELECT pg_logical_emit_message(true, 'tests', 'a, kept');
UPDATE wells SET id = 104 WHERE id = 101;
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @b
INSERT INTO wells (id, name) VALUES (201, 'b, never');
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @b
ROLLBACK;

-- @c
INSERT INTO wells (id, name) VALUES (301, 'c');

-- @a
COMMIT;

-- A large transaction that changes a table's definition, while smaller ones use other tables.
BEGIN;
INSERT INTO plain VALUES (15, 'fifteen');
ALTER TABLE plain ADD COLUMN more int;
INSERT INTO plain VALUES (16, 'sixteen', 16);
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @c
INSERT INTO sums VALUES (2, 22);

-- @a
INSERT INTO plain VALUES (17, 'seventeen', 17);
COMMIT;
INSERT INTO plain VALUES (18, 'eighteen', 18);

-- The same, rolled back.
BEGIN;
ALTER TABLE plain DROP COLUMN more;
INSERT INTO plain VALUES (19, 'never');
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @a
ROLLBACK;
INSERT INTO plain VALUES (20, 'twenty', 20);

-- A large transaction from elsewhere.
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABCDF0', '2024-01-01 00:00:00+00');
INSERT INTO sums VALUES (3, 23);
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;
COMMIT;
SELECT pg_replication_origin_session_reset();

-- Two-phase commits: one in two sessions, one that is rolled back.
BEGIN;
INSERT INTO sums VALUES (4, 24);
TRUNCATE plain;
PREPARE TRANSACTION 'small, kept';

-- @b
BEGIN;
SELECT pg_replication_origin_session_setup('elsewhere');
SELECT pg_replication_origin_xact_setup('0/ABCDF1', '2024-01-01 00:00:00+00');
INSERT INTO wells (id, name) VALUES (400, 'never');
PREPARE TRANSACTION 'small, never';
SELECT pg_replication_origin_session_reset();

-- @c
INSERT INTO wells (id, name) VALUES (302, 'c');
COMMIT PREPARED 'small, kept';
ROLLBACK PREPARED 'small, never';

-- The same with large transactions.
-- @a
BEGIN;
INSERT INTO sums VALUES (5, 25);
SAVEPOINT s;
INSERT INTO sums VALUES (6, 26);
SELECT pg_logical_emit_message(true, 'tests', 'in a sub-transaction, never');
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;

-- @a
ROLLBACK TO s;
INSERT INTO sums VALUES (7, 27);
PREPARE TRANSACTION 'large, kept';

-- @b
BEGIN;
INSERT INTO wells (id, name) VALUES (401, 'never');
INSERT INTO ballast SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;
PREPARE TRANSACTION 'large, never';

-- @c
INSERT INTO wells (id, name) VALUES (303, 'c');
ROLLBACK PREPARED 'large, never';
COMMIT PREPARED 'large, kept';
INSERT INTO sums VALUES (8, 28);
SELECT pg_logical_emit_message(true, 'tests', 'the end');
