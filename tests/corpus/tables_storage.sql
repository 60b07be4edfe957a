-- since: 14
-- Storage: parameters of tables and their toast, compression, kinds of storage, values that are out of line, access methods.
CREATE TABLE t (a text, b text COMPRESSION pglz, c text, d bytea) WITH (fillfactor = 50, autovacuum_enabled = off, toast.autovacuum_enabled = off, parallel_workers = 3, user_catalog_table = true);
ALTER TABLE t ALTER COLUMN a SET STORAGE EXTERNAL;
ALTER TABLE t ALTER COLUMN c SET STORAGE MAIN;
ALTER TABLE t ALTER COLUMN c SET COMPRESSION pglz;
INSERT INTO t SELECT repeat('a', 10000), repeat('b', 10000), repeat('c', 5000), decode(repeat('00ff', 5000), 'hex') FROM generate_series(1, 5);
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other (a int) USING heap2;
INSERT INTO other VALUES (1);
CREATE ACCESS METHOD btree2 TYPE INDEX HANDLER bthandler;
COMMENT ON ACCESS METHOD heap2 IS 'as heap';
