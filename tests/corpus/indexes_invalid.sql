-- An index that could not be built concurrently: pg_dump leaves it out, pg_upgrade takes it along.
-- differs online: nothing
CREATE TABLE t (a int);
INSERT INTO t VALUES (1), (1);
CREATE INDEX good ON t (a);
UPDATE pg_catalog.pg_index SET indisvalid = false, indisready = false WHERE indexrelid = 'good'::regclass;
