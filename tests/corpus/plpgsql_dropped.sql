-- in place
-- A database without the language that every database has.
DROP EXTENSION plpgsql;
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
