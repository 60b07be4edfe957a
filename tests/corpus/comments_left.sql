-- Comments whose object no tool dumps, and comments that are left where there is no object any more.
CREATE TABLE t (a int);
CREATE INDEX i ON t (a);
COMMENT ON INDEX i IS 'of an index';
INSERT INTO pg_catalog.pg_description VALUES (987654, 'pg_catalog.pg_proc'::regclass, 0, 'of nothing');
CREATE TYPE shell;
COMMENT ON TYPE shell IS 'of a type that is a name only';
CREATE TABLE parent (a int PRIMARY KEY) PARTITION BY LIST (a);
CREATE TABLE child PARTITION OF parent FOR VALUES IN (1);
COMMENT ON CONSTRAINT child_pkey ON child IS 'of a key that came with the parent''s';
COMMENT ON TYPE _t IS 'of the type of arrays of a table''s rows';
COMMENT ON TYPE t IS 'of the type of a table''s rows';
