-- database: we'ird "n\a%me" = $(x); --
-- in place
-- A database whose name has all that shells, connection strings and SQL trip over.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
