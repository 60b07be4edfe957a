-- in place
-- A database without the information schema.
DROP SCHEMA information_schema CASCADE;
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
