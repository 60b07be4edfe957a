-- Rows that were updated, deleted and rolled back, a table that was truncated, one that lies in pieces.
CREATE TABLE t (a int PRIMARY KEY, b text);
INSERT INTO t SELECT n, 'x' FROM generate_series(1, 1000) n;
UPDATE t SET b = 'y' WHERE a % 3 = 0;
DELETE FROM t WHERE a % 5 = 0;
BEGIN; INSERT INTO t VALUES (5000, 'never'); ROLLBACK;
CREATE TABLE u (a int);
INSERT INTO u VALUES (1);
TRUNCATE u;
