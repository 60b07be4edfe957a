-- Names of the catalog as values: as regclass and the like they are written by name, and pg_upgrade takes only some.
CREATE TABLE t (a regtype, b regclass, c regrole);
INSERT INTO t VALUES ('integer', 'pg_catalog.pg_class', 'postgres');
