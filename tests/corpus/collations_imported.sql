-- Collations that a superuser has imported again, which are nobody's, and in the system's own schema.
DELETE FROM pg_catalog.pg_collation WHERE collname = 'C.utf8';
SELECT pg_import_system_collations('pg_catalog');
CREATE TABLE t (a text COLLATE "C.utf8");
INSERT INTO t VALUES ('ä');
CREATE INDEX ON t (a);
