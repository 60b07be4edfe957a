-- database: postgresql://nowhere:1/x?user=y
-- in place
-- A database whose name is what a connection looks like elsewhere.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
