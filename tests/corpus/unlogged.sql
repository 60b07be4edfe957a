-- since: 15
-- Unlogged tables with an index, a sequence of their own and a partition; their rows are in dumps, and not on a standby.
CREATE UNLOGGED TABLE u (a serial PRIMARY KEY, b text);
INSERT INTO u (b) SELECT 'x' || n FROM generate_series(1, 50) n;
CREATE TABLE p (a int) PARTITION BY LIST (a);
CREATE UNLOGGED TABLE p1 PARTITION OF p FOR VALUES IN (1);
INSERT INTO p VALUES (1);
CREATE UNLOGGED SEQUENCE s;
SELECT setval('s', 77);
