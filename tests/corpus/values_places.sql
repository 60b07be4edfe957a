-- differs across majors: x/y
-- Places in the log, alone and in others: 19 writes them with more digits.
CREATE TYPE pair AS (a pg_lsn, b int);
CREATE DOMAIN place AS pg_lsn;
CREATE TABLE t (a pg_lsn, b pg_lsn[], c pair, d place, e text);
INSERT INTO t VALUES ('0/16', ARRAY['1/2'::pg_lsn, NULL], ROW('A/B', 1), '0/0', 'x/y');
